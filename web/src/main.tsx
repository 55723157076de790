import "./styles/mantine.css";
import "./styles/global.css";
import "./styles/classNames.css";
import { createRoot } from "react-dom/client";
import { App } from "./app/App.tsx";

const root = document.getElementById("root");
if (root) createRoot(root).render(<App />);
