// The page: starts, watches and steers videos.

import { api, videoPath } from "./api.js";
import { Player } from "./player.js";
import { showGallery, showTimeline, showVocabulary } from "./views.js";

const $ = (id) => document.getElementById(id);
const player = new Player($("video"));
const REFRESH = 3000; // milliseconds between looks at the list
let current = null; // the video that is shown
let events = null; // its server-sent events
let progress = null; // the newest one
let models = [];
let dropped = null; // a file to continue from

const say = (text) => { $("message").textContent = text; };
const isActive = () => current && ["queued", "rendering", "paused"].includes(current.state);
const seconds = () => (progress ? progress.frames / progress.rate : current ? current.frames / current.rate : 0);

async function attempt(action) {
  try {
    say("");
    return await action();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message);
  }
}

function update() {
  const active = isActive();
  $("steer").disabled = !active;
  $("pause").disabled = !active;
  $("pause").textContent = current?.state === "paused" ? "Resume" : "Pause";
  $("stop").disabled = !(active && current.total_frames === 0);
  $("finished").hidden = !current || active;
  if (!current) return;
  $("download").href = videoPath(current.id, current.state === "completed" ? "/content" : "/partial");
  showTimeline($("timeline"), current, seconds());
  const speed = progress && current.state === "rendering" ? ` · ${progress.fps.toFixed(1)} frames/s` : "";
  const chunk = progress ? ` · chunk ${progress.chunk}` : "";
  $("stats").textContent = `${current.state} · ${seconds().toFixed(1)} s${chunk}${speed} · buffer ${player.ahead.toFixed(1)} s`;
}

async function refresh() {
  const list = await api("GET", "/v1/videos?limit=50");
  const mine = list.data.find((video) => video.id === current?.id);
  if (mine) current = mine;
  showGallery($("gallery"), list.data, current?.id, open);
  update();
}

function follow(id) {
  events?.close();
  events = new EventSource(videoPath(id, "/events"));
  events.addEventListener("progress", (event) => { progress = JSON.parse(event.data); update(); });
  events.addEventListener("prompt", () => attempt(refresh));
  events.addEventListener("prompt_rejected", (event) => say(JSON.parse(event.data).message));
  events.addEventListener("state", (event) => {
    const { state, error } = JSON.parse(event.data);
    if (error) say(error);
    if (["completed", "failed", "deleted"].includes(state)) events.close();
    attempt(refresh);
  });
}

function open(video) {
  current = video;
  progress = null;
  location.hash = video.id;
  update();
  if (isActive()) {
    follow(video.id);
    attempt(() => player.playLive(video.id));
  } else {
    events?.close();
    player.playFile(video.id, video.state === "completed" ? "/content" : "/partial");
  }
  attempt(refresh);
}

function settings() {
  const values = { model: $("model").value, live: true };
  for (const name of ["seed", "steps"]) if ($(name).value) values[name] = Number($(name).value);
  return values;
}

async function start() {
  const prompt = $("prompt").value.trim();
  const file = dropped ?? $("file").files[0];
  const length = $("seconds").value;
  const options = { ...settings(), seconds: length === "forever" ? length : Number(length) };
  if (!file) return open(await api("POST", "/v1/videos", { prompt, ...options }));
  const form = new FormData();
  form.append("prompt", prompt);
  form.append("options", JSON.stringify(options));
  form.append("input_reference", file);
  open(await api("POST", "/v1/videos", form));
  dropped = null;
  $("file").value = "";
}

const steer = () => api("POST", videoPath(current.id, "/prompt"), { prompt: $("prompt").value.trim() });
const change = (action, body) => attempt(async () => { await api("POST", videoPath(current.id, action), body); await refresh(); });
const derive = (action, body) => attempt(async () => open(await api("POST", videoPath(current.id, action), body)));

$("prompt-form").addEventListener("submit", (event) => { event.preventDefault(); attempt(start); });
$("steer").addEventListener("click", () => attempt(steer));
$("pause").addEventListener("click", () => change(current.state === "paused" ? "/resume" : "/pause"));
$("stop").addEventListener("click", () => change("/stop"));
$("extend").addEventListener("click", () => derive("/extend", { seconds: 10, prompt: "", live: true }));
$("redo").addEventListener("click", () => derive("/redo", {
  from: $("from").value || "0",
  ...($("to").value ? { to: $("to").value } : {}),
  ...($("prompt").value.trim() && $("prompt").value.trim() !== current.prompt ? { prompt: $("prompt").value.trim() } : {}),
}));
$("delete").addEventListener("click", () => attempt(async () => {
  await api("DELETE", videoPath(current.id));
  current = null;
  await refresh();
}));
$("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!$("prompt-form").reportValidity()) return;
  attempt(isActive() ? steer : start);
});
$("model").addEventListener("change", () => {
  showVocabulary($("vocabulary"), models.find((model) => model.id === $("model").value)?.help ?? []);
});
addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
addEventListener("dragleave", () => document.body.classList.remove("dropping"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  dropped = event.dataTransfer.files[0] ?? null;
  if (dropped) say(`the next video begins with ${dropped.name}`);
});

await attempt(async () => {
  models = (await api("GET", "/v1/models")).data;
  $("model").replaceChildren(...models.map((model) => new Option(model.id, model.id)));
  showVocabulary($("vocabulary"), models[0]?.help ?? []);
  await refresh();
  const shown = location.hash.slice(1);
  if (/^video_[0-9a-f]{24}$/.test(shown)) open(await api("GET", videoPath(shown)));
});
setInterval(() => attempt(refresh), REFRESH);
setInterval(update, 500);
