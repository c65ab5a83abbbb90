// Elements, and numbers as text. Text is set as text, never as HTML: names and words may be a stranger's.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** An element of HTML. */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An element of SVG. */
export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** A drawing that is made anew for each width of its place, so that its text keeps its size. */
export function drawing(attributes, height, render) {
  const svg = draw("svg", { height, ...attributes });
  const again = () => {
    const width = Math.max(svg.getBoundingClientRect().width, 200);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.replaceChildren();
    render(svg, width);
  };
  new ResizeObserver(again).observe(svg);
  return { svg, again };
}

/** A table that is folded away beside a drawing, with the same numbers. */
export function table(summary, header, rows) {
  const head = make("tr", {}, ...header.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...rest]) =>
    make("tr", {}, make("th", { scope: "row" }, first), ...rest.map((text) => make("td", {}, text))));
  const whole = make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
  return make("details", {}, make("summary", {}, summary), make("div", { class: "scroll", tabindex: 0 }, whole));
}

const minus = (text) => text.replace("-", "−");

/** A number with its sign. */
export const signed = (value, digits = 2) => {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : minus(value > 0 ? `+${text}` : text);
};

/** Seconds as 1:05.2. */
export const clock = (seconds, digits = 1) => {
  const rounded = Number(seconds.toFixed(digits));
  const rest = (rounded % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  return `${Math.floor(rounded / 60)}:${rest}`;
};

/** A share as 12 %. */
export const percent = (share) => `${minus((100 * share).toFixed(0))}\u00a0%`;

/** "a", "a and b", "a, b and c". */
export const listed = (names) =>
  names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
