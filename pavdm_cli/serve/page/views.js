// The gallery, the timeline of prompts and the vocabulary. Text is only ever set as text.

function element(name, text = "", properties = {}) {
  const made = Object.assign(document.createElement(name), properties);
  made.textContent = text;
  return made;
}

export function showGallery(list, videos, current, onOpen) {
  const focused = document.activeElement?.dataset?.id;
  list.replaceChildren(
    ...videos.map((video) => {
      const length = `${(video.frames / video.rate).toFixed(1)} s`;
      const item = element("li");
      const button = element("button", `${video.prompt} · ${video.state} · ${length} · seed ${video.seed}`);
      button.type = "button";
      button.dataset.id = video.id;
      button.setAttribute("aria-current", String(video.id === current));
      button.title = video.error?.message ?? video.timeline.map((change) => `${change.at} s: ${change.prompt}`).join("\n");
      button.addEventListener("click", () => onOpen(video));
      item.append(button);
      return item;
    }),
  );
  if (focused) list.querySelector(`[data-id="${CSS.escape(focused)}"]`)?.focus();
}

export function showTimeline(box, video, seconds) {
  const length = Math.max(seconds, video.total_frames / video.rate, 1);
  const prompts = [{ at: 0, prompt: video.prompt }, ...video.timeline];
  box.replaceChildren(
    ...prompts.map(({ at, prompt }) => {
      const mark = element("span", prompt, { title: `${at} s: ${prompt}` });
      mark.style.left = `${(100 * at) / length}%`;
      return mark;
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
