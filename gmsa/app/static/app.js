// The page: takes a video or records one, waits for the answers, and joins them to the player.

import { answersOf, Column } from "./answer.js";
import { clock, listed, make, percent } from "./dom.js";

const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.search).get("token") ?? "";
const video = $("video");
const GONE = "The server does not answer; has gmsa app ended? Start it again, and open its new link.";
let about = { runs: [], limit: Infinity, seconds: 0 };
let clip = null; // the id of what is shown or worked on
let columns = [];
let duration = 0, time = 0;
let recorder = null;
let starting = false; // to record: the browser asks for the camera
let turn = 0; // of what was asked of the page: what comes of an earlier one is not shown

async function ask(path, options = {}) {
  let reply;
  try {
    reply = await fetch(path, { ...options, headers: { "X-Gmsa-Token": token } });
  } catch {
    throw new Error(GONE);
  }
  const content = await reply.json();
  if (!reply.ok) throw new Error(content.error);
  return content;
}

function say(text, kind = "") {
  $("status").textContent = text;
  $("status").className = kind;
}

function show(part) {
  $("start").hidden = part !== "start";
  $("result").hidden = part !== "result";
  document.body.classList.toggle("recording", part === "recording");
  if (part === "recording") $("result").hidden = false;
}

function working(share) {
  $("progress").hidden = $("cancel").hidden = share == null;
  if (share != null) $("progress").value = share;
}

async function forget(id) {
  if (id) await ask(`/api/clips/${id}`, { method: "DELETE" }).catch(() => {});
}

function clear() {
  columns = [];
  $("answers").replaceChildren();
  video.pause();
  video.removeAttribute("src");
  video.srcObject = null;
  video.load();
  document.title = "gmsa";
}

/** Sends a file, and shows what comes of it. */
async function send(file, name) {
  const before = clip, mine = ++turn;
  clip = null;
  clear();
  working(null);
  show("start");
  await forget(before); // the page shows one clip, and keeps none that nobody sees
  if (mine !== turn) return;
  if (file.size > about.limit) {
    say(`“${name}” has ${mebibytes(file.size)} MiB, more than the limit of ${mebibytes(about.limit)} MiB; ` +
      "gmsa app --limit raises it.", "error");
    return;
  }
  try {
    say(`Sending “${name}”`);
    working(0);
    const { id } = await ask(`/api/clips?name=${encodeURIComponent(name)}`, { method: "POST", body: file });
    if (mine !== turn) { // canceled, or another one was opened
      await forget(id);
      return;
    }
    clip = id;
    const found = await answered(id);
    if (clip !== id) return;
    if (found.state === "failed") {
      await forget(id);
      clip = null;
      say(found.stage, "error");
    } else {
      present(found);
    }
  } catch (error) {
    if (mine === turn) say(error.message, "error");
  } finally {
    if (mine === turn) working(null);
  }
}

/** Waits for the answers of a clip. */
async function answered(id) {
  for (;;) {
    const found = await ask(`/api/clips/${id}`);
    if (clip !== id || found.state === "done" || found.state === "failed") return found;
    say(found.stage);
    working(found.share);
    await new Promise((after) => setTimeout(after, 300));
  }
}

function present({ id, name, answers }) {
  columns = answersOf(answers).map((answer) => new Column(answer, seek));
  $("answers").replaceChildren(...columns.map((column) => column.element));
  $("answers").classList.toggle("many", columns.length > 1);
  duration = Math.max(...answers.map((one) => one.duration));
  time = 0;
  const [first] = answers;
  $("name").textContent = name;
  const long = duration < 60 ? `${duration.toFixed(1)} seconds` : `${clock(duration)} minutes`;
  $("facts").textContent = [long, first.face == null ? "" : `a face in ${percent(first.face)} of it`,
    first.speech == null ? "" : `speech in ${percent(first.speech)}`].filter(Boolean).join(", ");
  $("warnings").replaceChildren(...warnings(answers).map((text) => make("li", {}, text)));
  const data = [...new Set(answers.map((one) => one.trained_on).filter(Boolean))];
  $("limits-of-use").textContent = "An estimate of the sentiment that is expressed, by a model trained on " +
    `${data.length ? listed(data) : "labeled clips of other people"}; not what a person feels, and no basis for ` +
    "decisions about people.";
  $("unplayable").hidden = true;
  // The element cannot send a header, so the token is in its address; see gmsa/app/guard.py on cookies.
  video.muted = false;
  video.controls = true;
  video.src = `/api/clips/${id}/video?token=${encodeURIComponent(token)}`;
  show("result");
  move(0);
  const told = columns.map(({ answer }) =>
    `${columns.length > 1 ? `${answer.run}: ` : ""}${answer.label} (${answer.show(answer.value)})`);
  const count = $("warnings").children.length;
  const more = count ? `; ${count} warning${count > 1 ? "s" : ""}` : "";
  say(`Done. ${told.join("; ")}${more}`, "done"); // heard, not seen: the answer stands there
  document.title = `${name} · gmsa`;
}

/** The warnings of all runs; those of some alone name them. */
function warnings(answers) {
  const texts = [...new Set(answers.flatMap((one) => one.warnings))];
  return texts.map((text) => {
    const by = answers.filter((one) => one.warnings.includes(text)).map((one) => one.run);
    return by.length === answers.length ? text : `${listed(by)}: ${text}`;
  });
}

function move(seconds) {
  time = seconds;
  for (const column of columns) column.move(time);
}

function seek(seconds) {
  move(seconds);
  if (video.readyState) video.currentTime = Math.min(seconds, video.duration);
}

function follow() {
  if (columns.length && !video.paused) move(video.currentTime);
  if (!video.paused) requestAnimationFrame(follow);
}

async function remove() {
  const id = clip, name = $("name").textContent;
  const shown = !$("result").hidden;
  turn += 1;
  clip = null;
  clear();
  show("start");
  working(null);
  try {
    if (id) await ask(`/api/clips/${id}`, { method: "DELETE" }); // what is being sent is deleted when it has come
    say(shown ? `Deleted “${name}” and its answers.` : "Canceled; the file is deleted.");
  } catch (error) {
    say(error.message, "error");
  }
  $("file").focus();
}

const REFUSED = {
  NotFoundError: "No camera or microphone was found; connect one, or open a video instead.",
  NotAllowedError: "The browser may not use the camera and the microphone; allow it beside the address.",
  NotReadableError: "The camera is used by another program; close it, and try again.",
};

async function record() {
  if (recorder) {
    recorder.stop();
    return;
  }
  if (starting) return;
  let stream;
  starting = true;
  try {
    if (!navigator.mediaDevices || !window.MediaRecorder) {
      throw new Error("This browser cannot record; open a video instead.");
    }
    stream = await navigator.mediaDevices.getUserMedia({ video: true, audio: true });
  } catch (error) {
    say(REFUSED[error.name] ?? error.message, "error");
    starting = false;
    return;
  }
  turn += 1;
  working(null);
  const before = clip, parts = [], started = Date.now();
  clip = null;
  clear();
  await forget(before);
  recorder = new MediaRecorder(stream);
  starting = false;
  const tick = setInterval(() => {
    const seconds = (Date.now() - started) / 1000;
    $("record").textContent = `Stop ${clock(seconds, 0)}`;
    if (about.seconds && seconds >= about.seconds - 1) recorder.stop();
  }, 250);
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.onstop = () => {
    const type = recorder.mimeType;
    clearInterval(tick);
    for (const track of stream.getTracks()) track.stop();
    recorder = null;
    $("record").textContent = "Record";
    $("file").disabled = false;
    send(new Blob(parts, { type }), "Recording");
  };
  video.srcObject = stream;
  video.muted = true;
  video.controls = false;
  $("file").disabled = true;
  show("recording");
  say("Recording; press Stop to end it.");
  recorder.start(500);
  video.play().catch(() => {});
  $("record").textContent = "Stop";
}

const mebibytes = (bytes) => (bytes / 2 ** 20).toFixed(bytes < 2 ** 20 ? 2 : 0);

$("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = ""; // so that the same file can be opened again
  if (file) send(file, file.name);
});
$("record").addEventListener("click", record);
$("delete").addEventListener("click", remove);
$("cancel").addEventListener("click", remove);
// Nobody finds back to a clip whose page is closed.
addEventListener("pagehide", () => clip && fetch(`/api/clips/${clip}`,
  { method: "DELETE", keepalive: true, headers: { "X-Gmsa-Token": token } }));
video.addEventListener("play", follow);
for (const name of ["timeupdate", "seeked"]) {
  video.addEventListener(name, () => columns.length && !video.seeking && move(video.currentTime));
}
video.addEventListener("error", () => {
  $("unplayable").hidden = !video.hasAttribute("src");
});
for (const name of ["dragover", "drop"]) {
  document.addEventListener(name, (event) => event.preventDefault());
}
document.addEventListener("drop", (event) => {
  const [file] = event.dataTransfer.files;
  if (file && !recorder) send(file, file.name);
});

ask("/api/about").then((found) => {
  about = found;
  $("runs").textContent = listed(about.runs);
  $("limits").textContent = `Up to ${mebibytes(about.limit)} MiB and ${clock(about.seconds, 0)} minutes. ` +
    "Nothing leaves this machine; files are removed when gmsa app ends.";
  say("Ready.");
}).catch((error) => say(error.message, "error"));
