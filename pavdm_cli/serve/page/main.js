// The page: starts, watches and steers videos.

import { api, videoPath } from "./api.js";
import { Player } from "./player.js";
import { seconds, showExamples, showGallery, showNotes, showTimeline, showVocabulary } from "./views.js";

const $ = (id) => document.getElementById(id);
const player = new Player($("video"));
const REFRESH = 3000; // milliseconds between looks at the list
const RETRY = 2000; // milliseconds until a lost connection is tried again
const PAGE = 50; // videos of the list that are loaded at a time
const stillMotion = matchMedia("(prefers-reduced-motion: reduce)");
let current = null; // the video that is shown
let events = null; // its server-sent events
let progress = null; // the newest one
let models = [];
let listed = PAGE; // videos of the list that are shown

const say = (text) => { $("message").textContent = text; };
const isActive = () => current && ["queued", "rendering", "paused"].includes(current.state);
const rendered = () => (progress ? progress.frames / progress.fps : current.frames / current.fps);
const length = () => Math.max(rendered(), current.total_frames / current.fps, 1);
const sleep = (duration) => new Promise((resolve) => setTimeout(resolve, duration));

async function report(action) {
  try {
    return await action();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message);
  }
}

// What the user does replaces the last message; what the server reports does not.
function attempt(action) {
  say("");
  return report(action);
}

function update() {
  const active = isActive();
  $("steer").disabled = !active;
  $("pause").disabled = !active;
  $("pause").textContent = current?.state === "paused" ? "Resume" : "Pause";
  $("stop").disabled = !(active && current.total_frames === 0);
  $("finished").hidden = !current || active;
  $("timeline").hidden = !current;
  $("prompt").required = !$("file").files.length;
  $("clear").hidden = !$("file").files.length;
  showNotes($("caption"), $("notes"), current, $("video").currentTime);
  if (!current) return ($("stats").textContent = "");
  for (const id of ["extend", "redo", "from", "to"]) $(id).disabled = current.state !== "completed";
  $("download").hidden = !current.playable;
  $("download").href = videoPath(current.id, current.state === "completed" ? "/content" : "/partial");
  showTimeline($("prompts"), current, length(), (at) => player.seek(at));
  $("position").style.left = `${Math.min(100, (100 * $("video").currentTime) / length())}%`;
  const speed = progress && current.state === "rendering" ? [`${progress.render_fps.toFixed(1)} frames/s`] : [];
  const chunk = progress ? [`chunk ${progress.chunk}`] : [];
  $("stats").textContent = [current.state, seconds(rendered()), ...chunk, ...speed, `buffer ${player.ahead.toFixed(1)} s`].join(" · ");
}

async function loadList() {
  const videos = [];
  for (let more = true; more && videos.length < listed; ) {
    const after = videos.length ? `&after=${videos.at(-1).id}` : "";
    const page = await api("GET", `/v1/videos?limit=${PAGE}${after}`);
    videos.push(...page.data);
    more = page.has_more && page.data.length > 0;
    $("more").hidden = !more;
  }
  return videos;
}

async function refresh() {
  const videos = await loadList();
  const mine = videos.find((video) => video.id === current?.id);
  if (mine) current = mine;
  showGallery($("gallery"), videos, current?.id, (video) => open(video));
  update();
}

function follow(id) {
  events?.close();
  events = new EventSource(videoPath(id, "/events"));
  events.addEventListener("video", (event) => { current = JSON.parse(event.data); update(); });
  events.addEventListener("progress", (event) => { progress = JSON.parse(event.data); update(); });
  events.addEventListener("prompt", () => report(refresh));
  events.addEventListener("prompt_rejected", (event) => say(JSON.parse(event.data).message));
  events.addEventListener("state", (event) => report(() => changeState(JSON.parse(event.data))));
}

async function changeState({ state, error }) {
  const wasPaused = current?.state === "paused";
  if (state === "deleted") close();
  if (["completed", "failed", "deleted"].includes(state)) events.close();
  await refresh();
  if (error) say(error);
  if (!current) return;
  if (state === "completed" && player.idle) {
    say("");
    await player.playFile(current, true);
  }
  if (state === "rendering" && wasPaused && player.idle) await watch(current, true);
}

// Play a video that is being rendered; if the server stops or cannot be reached, try again.
async function watch(video, play) {
  for (let shown = video; ; shown = current) {
    try {
      await player.playLive(shown, play);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
      say("no connection to the server: trying again");
    }
    await sleep(RETRY);
    await refresh().catch(() => {});
    if (current?.id !== video.id || !["queued", "rendering"].includes(current.state)) return;
  }
}

function open(video, play = true) {
  current = video;
  progress = null;
  location.hash = video.id;
  update();
  events?.close();
  if (isActive()) follow(video.id);
  if (["queued", "rendering"].includes(video.state)) attempt(() => watch(video, play));
  else if (video.playable) attempt(() => player.playFile(video, play));
  else player.close();
  attempt(refresh);
}

function settings() {
  const values = { model: $("model").value, live: true };
  for (const name of ["seed", "steps", "guidance"]) if ($(name).value) values[name] = Number($(name).value);
  return values;
}

async function start() {
  const prompt = $("prompt").value.trim();
  const file = $("file").files[0];
  const duration = $("seconds").value;
  const options = { ...settings(), seconds: duration === "forever" ? duration : Number(duration) };
  if (!file) return open(await api("POST", "/v1/videos", { prompt, ...options }));
  const form = new FormData();
  form.append("prompt", prompt);
  form.append("options", JSON.stringify(options));
  form.append("input_reference", file);
  say(`sending ${file.name}`);
  open(await api("POST", "/v1/videos", form));
  $("file").value = "";
}

const typed = () => $("prompt").value.trim();
const steer = () => api("POST", videoPath(current.id, "/prompt"), { prompt: typed() });
const change = (action) => attempt(async () => { await api("POST", videoPath(current.id, action)); await refresh(); });
const derive = (action, body) => attempt(async () => open(await api("POST", videoPath(current.id, action), body)));

function redo() {
  const body = { from: $("from").value || "0" };
  if ($("to").value) body.to = $("to").value;
  if (typed() && typed() !== current.prompt) body.prompt = typed();
  return derive("/redo", body);
}

async function remove() {
  await api("DELETE", videoPath(current.id));
  close();
  await refresh();
}

function close() {
  events?.close();
  player.close();
  current = null;
  history.replaceState(null, "", location.pathname);
}

function chooseModel() {
  const model = models.find((one) => one.id === $("model").value);
  showVocabulary($("vocabulary"), model?.help ?? []);
  showExamples($("examples"), model?.examples ?? [], (prompt) => { $("prompt").value = prompt; $("prompt").focus(); });
  $("prompt").placeholder = model?.examples[0] ?? "";
}

function drop(event) {
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (!event.dataTransfer.files.length) return;
  $("file").files = event.dataTransfer.files;
  update();
  say(`the next video begins with ${event.dataTransfer.files[0].name}: describe what follows, and start`);
  $("prompt").focus();
}

$("prompt-form").addEventListener("submit", (event) => { event.preventDefault(); attempt(start); });
$("steer").addEventListener("click", () => attempt(steer));
$("pause").addEventListener("click", () => change(current.state === "paused" ? "/resume" : "/pause"));
$("stop").addEventListener("click", () => change("/stop"));
$("extend").addEventListener("click", () => derive("/extend", { seconds: 10, live: true }));
$("redo").addEventListener("click", redo);
$("delete").addEventListener("click", () => attempt(remove));
$("more").addEventListener("click", () => { listed += PAGE; attempt(refresh); });
$("file").addEventListener("change", update);
$("clear").addEventListener("click", () => { $("file").value = ""; update(); $("file").focus(); });
$("model").addEventListener("change", chooseModel);
$("video").addEventListener("timeupdate", update);
$("prompt").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!$("prompt-form").reportValidity()) return;
  attempt(isActive() && !$("file").files.length ? steer : start);
});
addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
addEventListener("dragleave", () => document.body.classList.remove("dropping"));
addEventListener("drop", drop);

await attempt(async () => {
  models = (await api("GET", "/v1/models")).data;
  $("model").replaceChildren(...models.map((model) => new Option(model.id, model.id)));
  chooseModel();
  await refresh();
  const shown = location.hash.slice(1);
  if (/^video_[0-9a-f]{24}$/.test(shown)) open(await api("GET", videoPath(shown)), !stillMotion.matches);
});
setInterval(() => refresh().catch(() => {}), REFRESH);
setInterval(update, 500);
