// What one run says of a clip: the answer, its bars, the timeline and the words.

import { clock, listed, make, percent, signed, table } from "./dom.js";
import { extent, OTHERS, sample, scale, stepsOf, timeline, waterfall } from "./plots.js";

const NAMES = ["text", "audio", "vision"];

/** An answer of the server, with what all its parts need to know. */
class Answer {
  constructor(content) {
    Object.assign(this, content);
    const { kind, low, high } = content.target;
    this.ofClasses = kind === "classes";
    this.range = this.ofClasses ? { low: 0, high: 1 } : { low: low ?? -3, high: high ?? 3 };
    const probability = content.probabilities?.[content.label];
    this.value = content.value ?? probability ?? null;
    this.seeds = Object.values(content.seeds ?? {}).filter((value) => typeof value === "number");
    const named = new Set(this.segments.flatMap((segment) =>
      [...Object.keys(segment.modalities?.parts ?? {}), ...Object.keys(segment.missing ?? {})]));
    this.modalities = [...NAMES.filter((name) => named.has(name)), ...[...named].filter((n) => !NAMES.includes(n))];
  }

  /** A value as text. */
  show(value, digits = 2) {
    if (value == null) return "–";
    return this.ofClasses ? percent(value) : signed(value, Number.isInteger(value) ? digits : 2);
  }

  /** A difference of values as text. */
  delta(value) {
    return this.ofClasses ? `${signed(100 * value, 0)}\u00a0%` : signed(value);
  }

  /** The class of a value's color. */
  tone(value) {
    return this.ofClasses || value == null || value === 0 ? "neutral" : value > 0 ? "positive" : "negative";
  }

  /** The class of a modality's color and dashes. */
  mark(name) {
    return this.modalities.includes(name) ? `m${this.modalities.indexOf(name) % 6}` : "all";
  }

  /** The segment at a time: the last one that has begun. */
  segmentAt(time) {
    return this.segments.findLast((segment) => segment.start <= time + 1e-3) ?? this.segments[0] ?? null;
  }

  /** The value without some modalities. */
  without(segment, present) {
    const key = (names) => names.filter(Boolean).sort().join("+");
    const found = Object.entries(segment.subsets).find(([names]) => key(names.split("+")) === key([...present]));
    return found ? found[1] : null;
  }
}

/** The answers of all runs; the bars of those on the same scale can be compared. */
export function answersOf(contents) {
  const answers = contents.map((content) => new Answer(content));
  for (const answer of answers) {
    const alike = answers.filter(({ range }) => range.low === answer.range.low && range.high === answer.range.high);
    answer.extent = extent(alike.flatMap(({ segments }) => segments.filter((one) => one.modalities)), answer.range);
  }
  return answers;
}

/** The column of a run. */
export class Column {
  constructor(answer, seek) {
    this.answer = answer;
    this.seek = seek;
    this.segment = undefined;
    this.bars = make("section", { class: "bars", "aria-label": "What each modality adds" });
    this.words = make("section", { class: "words", "aria-label": "Word by word" });
    this.element = make("article", { "aria-label": `Answer of ${this.answer.run}` }, make("h2", {}, this.answer.run),
      this.#verdict(), this.bars, this.#timeline(), this.words);
    this.move(0);
  }

  /** Follows the player. */
  move(time) {
    this.#showLegend(this.plot.move(time));
    const segment = this.answer.segmentAt(time);
    if (segment !== this.segment) {
      this.segment = segment;
      this.#showBars(segment);
      this.#showWords(segment);
    }
    for (const [button, word] of this.buttons) {
      const now = time >= word.start - 1e-3 && time < word.stop;
      button.classList.toggle("now", now);
    }
  }

  #verdict() {
    const { answer } = this;
    const big = answer.ofClasses ? answer.label : answer.show(answer.value);
    const small = answer.ofClasses ? answer.show(answer.value) : answer.label;
    const sure = Object.entries(answer.probabilities ?? {}).map(([name, share]) => {
      const bar = make("span", { class: name === answer.label ? "share chosen" : "share" });
      bar.style.inlineSize = `${100 * share}%`;
      return make("li", {}, make("span", {}, name), make("span", { class: "tube" }, bar),
        make("span", { class: "number" }, percent(share)));
    });
    const { seeds } = answer;
    const spread = seeds.length > 1
      ? `${seeds.length} seeds, from ${answer.show(Math.min(...seeds))} to ${answer.show(Math.max(...seeds))}` : null;
    return make("section", { class: "verdict", "aria-label": "Answer" },
      make("p", { class: "big" }, make("strong", { class: answer.tone(answer.value) }, big), make("span", {}, small)),
      answer.ofClasses || answer.value == null ? null : scale(answer).svg,
      sure.length ? make("ul", { class: "shares", "aria-label": "Probabilities" }, ...sure) : null,
      spread && make("p", { class: "soft" }, spread));
  }

  #timeline() {
    const { answer } = this;
    this.plot = timeline(answer, this.seek);
    this.legend = make("p", { class: "legend" });
    const title = answer.ofClasses ? `Over time: probability of ${answer.label}` : "Over time";
    const rows = answer.timeline.map((point) =>
      [clock(point.time), ...["value", ...answer.modalities].map((name) => answer.show(point[name]))]);
    return make("section", { class: "time", "aria-label": "Over time" },
      make("div", { class: "row" }, make("h3", {}, title), this.legend), this.plot.svg,
      table("Timeline as a table", ["Time", "All", ...answer.modalities.map((name) => `${name} alone`)], rows));
  }

  #showLegend(point) {
    const key = (name, text) => make("span", {}, sample(this.answer.mark(name)), `${text} `,
      make("b", {}, this.answer.show(point?.[name])));
    this.legend.replaceChildren(key("value", "all"),
      ...this.answer.modalities.map((name) => key(name, `${name} alone`)));
  }

  #title(text) {
    const { segments } = this.answer;
    const at = segments.indexOf(this.segment);
    return make("div", { class: "row" }, make("h3", {}, text), segments.length < 2 ? null : make("p", { class: "soft" },
      `part ${at + 1} of ${segments.length}, ${clock(this.segment.start)} to ${clock(this.segment.stop)}`));
  }

  #showBars(segment) {
    if (!segment) {
      this.bars.replaceChildren(make("h3", {}, "What each modality adds"),
        make("p", {}, "Nothing was found to explain."));
      return;
    }
    const { answer } = this;
    const missing = Object.entries(segment.missing ?? {}).map(([name, why]) =>
      make("p", { class: "note" }, make("b", {}, `${name} is missing`), `: ${why}`));
    if (!segment.modalities) {
      this.bars.replaceChildren(this.#title("What each modality adds"), ...missing,
        make("p", {}, segment.note ? `This part is ${segment.note}` : "This part is not explained."));
      return;
    }
    const { base, value, class: chosen } = segment.modalities;
    this.bars.replaceChildren(
      this.#title(chosen ? `What each modality adds to the probability of ${chosen}` : "What each modality adds"),
      waterfall(answer, segment).svg,
      ...missing,
      this.#toggles(segment),
      table("Bars and combinations as a table", ["", answer.ofClasses ? "Probability" : "Value"], [
        ["average of the training", answer.show(base)],
        ...stepsOf(segment).map(({ name, part }) => [`${name} adds`, answer.delta(part)]),
        ["answer", answer.show(value)],
        ...Object.entries(segment.subsets).filter(([names]) => names)
          .map(([names, value]) => [`with ${listed(names.split("+"))}`, answer.show(value)]),
      ]));
  }

  #toggles(segment) {
    const { answer } = this, present = Object.keys(segment.modalities.parts);
    const said = make("output", { "aria-live": "polite" });
    const boxes = answer.modalities.map((name) => {
      const has = present.includes(name);
      const box = make("input", { type: "checkbox", value: name, disabled: !has, onchange: () => tell() });
      box.checked = has;
      return box;
    });
    const tell = () => {
      const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
      const value = answer.without(segment, chosen);
      const all = segment.modalities.value, off = value == null ? null : value - all;
      const amount = off && (answer.ofClasses ? percent(Math.abs(off)) : Math.abs(off).toFixed(2));
      const change = chosen.length === present.length ? "with all that is there"
        : Math.abs(off ?? 0) < 0.005 ? "no change" : `${amount} ${off > 0 ? "more" : "less"} than with all`;
      said.replaceChildren(make("b", { class: answer.tone(value) }, answer.show(value)), ` ${chosen.length ? change
        : segment.modalities.neighbors == null ? "the average of the training" : `with ${OTHERS} alone`}`);
    };
    tell();
    return make("fieldset", {}, make("legend", {}, "If one were missing"), ...boxes.map((box) =>
      make("label", {}, box, make("span", { class: `key ${answer.mark(box.value)}` }), box.value)), said);
  }

  #showWords(segment) {
    const had = this.words.contains(document.activeElement);
    const words = segment?.words ?? [], unfaithful = segment?.faithful === false;
    const names = this.answer.modalities.filter((name) => words.some((word) => word.contribution?.[name] != null));
    const total = (word) => names.reduce((sum, name) => sum + (word.contribution?.[name] ?? 0), 0);
    const explained = names.length > 0 && segment.faithful === true;
    const top = Math.max(1e-6, ...words.map((word) => Math.abs(total(word))));
    const tell = (word) => `${word.text}${explained ? `: ${this.answer.delta(total(word))} (${names.map((name) =>
      `${name} ${this.answer.delta(word.contribution?.[name] ?? 0)}`).join(", ")})` : ""}, at ${clock(word.start)}`;
    this.buttons = words.map((word, i) => {
      const level = explained ? Math.round(3 * Math.abs(total(word)) / top) : 0;
      const tone = level ? ` ${total(word) > 0 ? "up" : "down"}${level}` : "";
      return [make("button", { type: "button", class: `word${tone}`, title: tell(word), "aria-label": tell(word),
        tabindex: i ? -1 : 0, onclick: () => this.seek(word.start) }, word.text), word];
    });
    const line = make("p", { class: "text", onkeydown: (event) => this.#walk(event) },
      ...this.buttons.flatMap(([button]) => [button, " "]));
    const note = segment?.note ? ` (${segment.note})` : "";
    const help = !words.length ? "No words were heard in this part."
      : unfaithful ? `No faithful explanation for this clip${note}. Choose a word to hear it.`
        : !explained ? "Choose a word to hear it." : null;
    const key = (name, text) => make("span", {},
      make("span", { class: `word ${name}`, "aria-hidden": "true" }, "word"), text);
    this.words.replaceChildren(this.#title("Word by word"), words.length ? line : "",
      help ? make("p", { class: "soft" }, help)
        : make("p", { class: "soft legend" }, key("up3", this.answer.ofClasses ? "speaks for it" : "raises the value"),
          key("down3", this.answer.ofClasses ? "speaks against it" : "lowers the value")),
      words.length ? table("Words as a table",
        ["Word", "Start", "End", "Certainty", ...(explained ? [...names, "Sum"] : [])],
        words.map((word) => [word.text, clock(word.start), clock(word.stop),
          word.confidence == null ? "–" : percent(word.confidence),
          ...(explained ? [...names.map((n) => this.answer.delta(word.contribution?.[n] ?? 0)),
            this.answer.delta(total(word))] : [])])) : "");
    if (had) this.buttons[0]?.[0].focus();
  }

  /** Arrow keys go from word to word, so that Tab passes all of them at once. */
  #walk(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const at = this.buttons.findIndex(([button]) => button === document.activeElement);
    if (!step || at < 0) return;
    event.preventDefault();
    const to = (at + step + this.buttons.length) % this.buttons.length;
    this.buttons.forEach(([button], i) => button.setAttribute("tabindex", i === to ? 0 : -1));
    this.buttons[to][0].focus();
  }
}
