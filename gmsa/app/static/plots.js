// The drawings of an answer: the scale, the timeline, and the bars that add up.

import { clock, draw, drawing } from "./dom.js";

/** The sample of a line that stands in a legend. */
export const sample = (mark) => draw("svg", { class: "sample", width: 26, height: 8, "aria-hidden": "true" },
  draw("line", { class: `line ${mark}`, x1: 1, x2: 25, y1: 4, y2: 4 }));

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** The value on its scale; ticks are the answers of single seeds. */
export function scale(answer) {
  const { low, high } = answer.range;
  return drawing({ class: "scale", role: "img", "aria-label": `${answer.show(answer.value)} on a scale from ` +
    `${answer.show(low)} to ${answer.show(high)}` }, 44, (svg, width) => {
    const x = (value) => 8 + (width - 16) * (clamp(value, low, high) - low) / (high - low);
    const zero = clamp(0, low, high);
    svg.append(draw("rect", { class: "track", x: x(low), y: 12, width: x(high) - x(low), height: 8, rx: 4 }));
    svg.append(draw("rect", { class: answer.tone(answer.value), x: Math.min(x(zero), x(answer.value)), y: 12,
      width: Math.abs(x(answer.value) - x(zero)), height: 8 }));
    for (const value of answer.seeds) {
      svg.append(draw("line", { class: "seed", x1: x(value), x2: x(value), y1: 7, y2: 25 }));
    }
    svg.append(draw("circle", { class: `mark ${answer.tone(answer.value)}`, cx: x(answer.value), cy: 16, r: 7 }));
    const ends = [[low, "start"], ...(low < 0 && high > 0 ? [[0, "middle"]] : []), [high, "end"]];
    for (const [value, anchor] of ends) {
      const at = anchor === "start" ? x(value) - 8 : anchor === "end" ? x(value) + 8 : x(value);
      svg.append(draw("text", { x: at, y: 41, "text-anchor": anchor }, answer.show(value, 0)));
    }
  });
}

/** Values along time, of all modalities and of each alone. Returns the drawing, and what moves its line to a time
 * and returns the values there. */
export function timeline(answer, seek) {
  const { low, high } = answer.range;
  const height = 180, left = answer.ofClasses ? 44 : 30, right = 10, top = 8, bottom = 24;
  const lines = ["value", ...answer.modalities];
  let time = 0, x = () => 0, y = () => 0, cursor = null, dots = [], bands = [];

  const plot = drawing({ class: "timeline", tabindex: 0, role: "slider", "aria-label": "Position in the clip",
    "aria-valuemin": 0, "aria-valuemax": answer.duration.toFixed(1) }, height, (svg, width) => {
    x = (seconds) => left + (width - left - right) * clamp(seconds / answer.duration, 0, 1);
    y = (value) => top + (height - top - bottom) * (high - clamp(value, low, high)) / (high - low);
    bands = answer.segments.map((part, i) => draw("rect", { class: i % 2 ? "part odd" : "part",
      x: x(part.start), y: top, width: Math.max(x(part.stop) - x(part.start), 0), height: height - top - bottom }));
    svg.append(...bands);
    for (const value of levels(low, high)) {
      svg.append(draw("line",
        { class: value ? "grid" : "zero", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
      svg.append(draw("text", { x: left - 7, y: y(value) + 4, "text-anchor": "end" }, answer.show(value, 0)));
    }
    for (const seconds of ticks(answer.duration, width)) {
      const anchor = x(seconds) > width - 30 ? "end" : seconds ? "middle" : "start";
      svg.append(draw("text", { x: anchor === "end" ? width : x(seconds), y: height - 6, "text-anchor": anchor },
        clock(seconds, 0)));
    }
    lines.slice().reverse().forEach((name) => pieces(answer.timeline, name).forEach((piece) => {
      const points = piece.map((point) => `${x(point.time).toFixed(1)},${y(point[name]).toFixed(1)}`).join(" ");
      svg.append(piece.length > 1
        ? draw("polyline", { class: `line ${answer.mark(name)}`, points })
        : draw("circle", { class: `dot ${answer.mark(name)}`, cx: x(piece[0].time), cy: y(piece[0][name]), r: 3 }));
    }));
    cursor = draw("line", { class: "now", y1: top, y2: height - bottom });
    dots = lines.map((name) => draw("circle", { class: `dot ${answer.mark(name)}`, r: name === "value" ? 5 : 3.5 }));
    svg.append(cursor, ...dots.reverse());
    dots.reverse();
    move(time);
  });

  function move(seconds) {
    time = seconds;
    const point = pointAt(answer.timeline, time, lines);
    plot.svg.setAttribute("aria-valuenow", time.toFixed(1));
    plot.svg.setAttribute("aria-valuetext",
      `${clock(time)}${point && point.value != null ? `, ${answer.show(point.value)}` : ""}`);
    if (!cursor) return point;
    bands.forEach((band, i) => band.classList.toggle("here", answer.segments[i] === answer.segmentAt(time)));
    cursor.setAttribute("x1", x(time));
    cursor.setAttribute("x2", x(time));
    lines.forEach((name, i) => {
      const known = point && point[name] != null;
      dots[i].setAttribute("visibility", known ? "visible" : "hidden");
      if (known) {
        dots[i].setAttribute("cx", x(time));
        dots[i].setAttribute("cy", y(point[name]));
      }
    });
    return point;
  }

  const at = (event) => {
    const box = plot.svg.getBoundingClientRect();
    return clamp((event.clientX - box.left - left) / (box.width - left - right), 0, 1) * answer.duration;
  };
  plot.svg.addEventListener("pointerdown", (event) => {
    plot.svg.setPointerCapture(event.pointerId);
    seek(at(event));
  });
  plot.svg.addEventListener("pointermove", (event) => event.buttons & 1 && seek(at(event)));
  plot.svg.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 0.5, ArrowUp: 0.5, ArrowLeft: -0.5, ArrowDown: -0.5, PageUp: 5, PageDown: -5 };
    const step = by[event.key];
    const to = { Home: 0, End: answer.duration }[event.key] ?? (step && clamp(time + step, 0, answer.duration));
    if (to === undefined) return;
    event.preventDefault();
    seek(to);
  });
  return { svg: plot.svg, move };
}

export const OTHERS = "other parts"; // of the video, where a run reads them too

/** What leads from the average of the training to the value of a segment. */
export function stepsOf({ modalities: { base, parts, neighbors } }) {
  let sum = base;
  const all = neighbors == null ? parts : { ...parts, [OTHERS]: neighbors };
  return Object.entries(all).map(([name, part]) => ({ name, part, from: sum, to: (sum += part) }));
}

/** The least and the largest value that the bars of segments reach. */
export function extent(segments, { low, high }) {
  const edges = segments.flatMap((segment) =>
    [segment.modalities.base, segment.modalities.value, ...stepsOf(segment).map((step) => step.to)]);
  const spread = Math.max(Math.max(...edges) - Math.min(...edges), (high - low) / 12);
  return [Math.min(...edges) - 0.06 * spread, Math.max(...edges) + 0.06 * spread];
}

/** From the average of the training to the value, a bar for each modality, each starting where the last one ends. */
export function waterfall(answer, segment) {
  const { base, value } = segment.modalities, steps = stepsOf(segment), [low, high] = answer.extent;
  const row = 25, rows = steps.length + 2;
  const text = steps.map(({ name, part }) => `${name} ${answer.delta(part)}`).join(", ");
  return drawing({ class: "waterfall", role: "img", "aria-label":
    `Average of the training ${answer.show(base)}, ${text}, answer ${answer.show(value)}` }, row * rows,
  (svg, width) => {
    const label = 84, number = 56;
    const x = (value) => label + (width - label - number) * (value - low) / (high - low);
    const line = (i, name, bar, value, kind) => {
      svg.append(draw("text", { x: 0, y: row * i + 17 }, name), bar,
        draw("text", { x: width, y: row * i + 17, "text-anchor": "end", class: `number ${kind}` }, value));
    };
    const stop = (i, value) => draw("circle", { class: "stop", cx: x(value), cy: row * i + 12.5, r: 4.5 });
    const join = (i, value) => svg.append(draw("line",
      { class: "join", x1: x(value), x2: x(value), y1: row * i + 12.5, y2: row * (i + 1) + 12.5 }));
    [base, ...steps.map((step) => step.to)].forEach((value, i) => join(i, value));
    line(0, "average", stop(0, base), answer.show(base), "soft");
    steps.forEach(({ name, part, from, to }, i) => line(i + 1, name, draw("rect", { class: `bar ${answer.mark(name)}`,
      x: Math.min(x(from), x(to)), y: row * (i + 1) + 4, width: Math.max(Math.abs(x(to) - x(from)), 1.5), height: 17,
      rx: 2 }), answer.delta(part), ""));
    line(rows - 1, "answer", stop(rows - 1, value), answer.show(value), "total");
  });
}

/** Where the lines are at a time: between two windows, on the straight line from one to the other. */
function pointAt(points, time, names) {
  const after = points.find((point) => point.time >= time) ?? points.at(-1);
  const before = points.findLast((point) => point.time <= time) ?? after;
  if (!after) return null;
  const share = after.time > before.time ? (time - before.time) / (after.time - before.time) : 0;
  const between = (a, b) => a == null || b == null ? (share < 0.5 ? a : b) : a + share * (b - a);
  return Object.fromEntries(names.map((name) => [name, between(before[name], after[name])]));
}

function pieces(points, name) {
  const found = [[]];
  for (const point of points) {
    if (point[name] == null) found.push([]);
    else found.at(-1).push(point);
  }
  return found.filter((piece) => piece.length);
}

function levels(low, high) {
  const step = high - low <= 1 ? 0.25 : high - low <= 8 ? 1 : (high - low) / 6;
  return Array.from({ length: Math.round((high - low) / step) + 1 }, (_, i) => low + i * step);
}

function ticks(duration, width) {
  const step = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600].find((s) => duration / s <= width / 70) ?? 1200;
  return Array.from({ length: Math.floor(duration / step) + 1 }, (_, i) => i * step)
    .filter((seconds) => duration - seconds >= 0);
}
