// Plays a video while it is rendered (Media Source Extensions), or the complete file.

import { videoPath } from "./api.js";

const KEEP = 60; // seconds before the current frame that stay in memory
const EDGE = 1; // seconds before the newest frame at which a late viewer begins

export class Player {
  constructor(video) {
    this.video = video;
    this.abort = null;
    video.addEventListener("waiting", () => this.skipGap());
  }

  close() {
    this.abort?.abort();
    this.abort = null;
    if (this.video.src.startsWith("blob:")) URL.revokeObjectURL(this.video.src);
  }

  playFile(id, kind = "/content") {
    this.close();
    this.video.src = videoPath(id, kind);
    this.video.play().catch(() => {});
  }

  async playLive(id) {
    this.close();
    const abort = (this.abort = new AbortController());
    const response = await fetch(videoPath(id, "/stream"), { signal: abort.signal });
    if (response.redirected) return this.playFile(id);
    const type = response.headers.get("content-type");
    if (!response.ok) throw new Error((await response.json()).error.message);
    if (!window.MediaSource || !MediaSource.isTypeSupported(type)) throw new Error(`this browser cannot play ${type}`);
    const source = new MediaSource();
    this.video.src = URL.createObjectURL(source);
    await once(source, "sourceopen");
    const buffer = source.addSourceBuffer(type);
    const reader = response.body.getReader();
    for (let first = true; ; first = false) {
      const { done, value } = await reader.read();
      if (abort.signal.aborted) return;
      if (done) break;
      await this.append(buffer, value);
      if (first) this.begin(buffer);
    }
    if (source.readyState === "open") source.endOfStream();
  }

  async append(buffer, data) {
    if (this.video.currentTime > 2 * KEEP) {
      buffer.remove(0, this.video.currentTime - KEEP);
      await once(buffer, "updateend");
    }
    buffer.appendBuffer(data);
    await once(buffer, "updateend");
  }

  begin(buffer) {
    const ranges = buffer.buffered;
    if (ranges.length && ranges.start(0) > 0.5) {
      this.video.currentTime = Math.max(ranges.start(0), ranges.end(ranges.length - 1) - EDGE);
    }
    this.video.play().catch(() => {});
  }

  skipGap() {
    const { buffered, currentTime } = this.video;
    for (let index = 0; index < buffered.length; index++) {
      if (buffered.start(index) > currentTime + 0.05) {
        this.video.currentTime = buffered.start(index);
        return;
      }
    }
  }

  get ahead() {
    const { buffered, currentTime } = this.video;
    return buffered.length ? Math.max(0, buffered.end(buffered.length - 1) - currentTime) : 0;
  }
}

const once = (target, name) => new Promise((resolve) => target.addEventListener(name, resolve, { once: true }));
