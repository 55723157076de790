/** The classes of classNames.css, so that a misspelled one is a type error. All others belong to one component. */

/** Text of less weight: captions, hints, units. */
export const soft = "soft";
/** Digits of equal width, so that numbers that change do not shake. */
export const numbers = "numbers";
/** For screen readers only. */
export const visuallyHidden = "visually-hidden";
