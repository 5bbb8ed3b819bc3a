// The gallery, the timeline of prompts, examples and the vocabulary. Text is only ever set as text.

import { videoPath } from "./api.js";

function element(name, text = "", properties = {}) {
  const node = Object.assign(document.createElement(name), properties);
  node.textContent = text;
  return node;
}

export const seconds = (value) => (value < 60 ? `${value.toFixed(1)} s` : `${Math.floor(value / 60)}:${String(Math.floor(value % 60)).padStart(2, "0")} min`);

// Existing entries are updated in place, so that focus and images stay.
export function showGallery(list, videos, current, onOpen) {
  const entries = new Map([...list.children].map((entry) => [entry.dataset.id, entry]));
  const order = videos.map((video) => entries.get(video.id) ?? newEntry(video.id));
  videos.forEach((video, index) => {
    const button = order[index].firstChild;
    button.onclick = () => onOpen(video);
    button.setAttribute("aria-current", String(video.id === current));
    showEntry(button, video);
  });
  for (const entry of list.children) if (!order.includes(entry)) entry.remove();
  order.forEach((entry, index) => {
    if (list.children[index] !== entry) list.insertBefore(entry, list.children[index] ?? null);
  });
}

function newEntry(id) {
  const entry = element("li");
  entry.dataset.id = id;
  const button = element("button", "", { type: "button" });
  button.append(element("span", "", { className: "prompt" }), element("span", "", { className: "facts" }));
  entry.append(button);
  return entry;
}

function showEntry(button, video) {
  // A file that has just got its first frames may lose them again, if the render stops for a new prompt.
  const lasting = video.state === "completed" || button.dataset.playable === "true";
  if (video.playable && lasting && !button.querySelector("img")) {
    const image = element("img", "", { alt: "", src: videoPath(video.id, "/content?variant=thumbnail") });
    image.addEventListener("error", () => image.remove()); // a render that continues rewrites its first seconds
    button.prepend(image);
  }
  button.dataset.playable = String(video.playable);
  const [prompt, facts] = button.querySelectorAll("span");
  setText(prompt, [video.prompt || "its own prompt", ...video.timeline.map((change) => change.prompt)].join(" → "));
  const total = video.total_frames && video.state !== "completed" ? ` of ${seconds(video.total_frames / video.fps)}` : "";
  setText(facts, [
    video.state,
    `${seconds(video.frames / video.fps)}${total}`,
    video.kind === "generate" ? "" : video.kind,
    video.size.replace("x", "×"),
    video.model,
    `seed ${video.seed}`,
    new Date(1000 * video.created_at).toLocaleString([], { dateStyle: "short", timeStyle: "short" }),
    video.error?.message ?? "",
  ].filter(Boolean).join(" · "));
}

const setText = (node, text) => { if (node.textContent !== text) node.textContent = text; };

// What the model was given at a time of the video, where it is not the prompt itself, and the notes.
export function showNotes(line, list, video, time) {
  const prompts = video ? [video, ...video.timeline.filter(({ at }) => at <= time)] : [];
  const { prompt, caption } = prompts.at(-1) ?? {};
  setText(line, caption && caption !== prompt ? `The model makes: ${caption}` : "");
  const notes = video?.notes ?? [];
  while (list.children.length > notes.length) list.lastChild.remove();
  while (list.children.length < notes.length) list.append(element("li"));
  notes.forEach((note, index) => setText(list.children[index], note));
}

export function showTimeline(list, video, length, onSeek) {
  const prompts = [{ at: 0, prompt: video.prompt }, ...video.timeline];
  while (list.children.length > prompts.length) list.lastChild.remove();
  while (list.children.length < prompts.length) {
    const item = element("li");
    item.append(element("button", "", { type: "button" }));
    list.append(item);
  }
  prompts.forEach(({ at, prompt }, index) => {
    const item = list.children[index];
    item.style.left = `${(100 * at) / length}%`;
    item.style.width = `${(100 * Math.max(0, (prompts[index + 1]?.at ?? length) - at)) / length}%`;
    item.firstChild.title = `${seconds(at)}: ${prompt}`;
    item.firstChild.onclick = () => onSeek(at);
    setText(item.firstChild, prompt);
  });
}

export function showExamples(box, prompts, onChoose) {
  box.replaceChildren(
    ...prompts.map((prompt) => {
      const button = element("button", prompt, { type: "button" });
      button.addEventListener("click", () => onChoose(prompt));
      return button;
    }),
  );
}

export function showVocabulary(box, tables) {
  box.replaceChildren(
    ...tables.map(({ title, head, rows }) => {
      const table = element("table");
      table.append(element("caption", title));
      for (const cells of [head, ...rows]) {
        const row = element("tr");
        row.append(...cells.map((cell) => element(cells === head ? "th" : "td", cell)));
        table.append(row);
      }
      return table;
    }),
  );
}
