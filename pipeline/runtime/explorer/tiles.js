// Rows of small pictures that are buttons: Tab enters a grid once, the arrow keys move within it.
import { paint } from "./drawing.js";

export function buildTiles(parent, count) {
  for (let i = 0; i < count; i++) {
    const button = document.createElement("button");
    button.type = "button";
    button.tabIndex = i ? -1 : 0;
    button.append(document.createElement("canvas"));
    parent.append(button);
  }
  parent.addEventListener("keydown", moveFocus);
}

/** Paint the images and name them; `open` is called with the number of the one that is chosen. */
export function fillTiles(parent, images, shape, name, open) {
  for (const [i, button] of [...parent.children].entries()) {
    paint(button.firstChild, images[i], shape);
    button.setAttribute("aria-label", name(i));
    button.setAttribute("aria-pressed", "false");
    button.onclick = () => {
      open(i);
      press(button);
    };
  }
}

/** Mark one tile of the page as the opened one, or none. */
export function press(button) {
  for (const other of document.querySelectorAll(".tiles button")) other.setAttribute("aria-pressed", other === button);
}

function moveFocus(event) {
  const tiles = [...event.currentTarget.children];
  const columns = getComputedStyle(event.currentTarget).gridTemplateColumns.split(" ").length;
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  const next = tiles[tiles.indexOf(event.target) + by];
  if (!next) return;
  event.preventDefault();
  for (const button of tiles) button.tabIndex = button === next ? 0 : -1;
  next.focus();
}
