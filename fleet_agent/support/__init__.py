"""Files, processes, time: helpers without a word of the product."""
