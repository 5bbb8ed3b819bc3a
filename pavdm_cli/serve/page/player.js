// Plays a video while it is rendered (Media Source Extensions), or its file.

import { responseError, videoPath } from "./api.js";

const KEEP = 300; // seconds before the current frame that stay in memory
const EDGE = 2; // seconds before the newest frame at which a late viewer begins: a live render is little ahead
const AHEAD = 1; // seconds that are loaded before playback starts, or it would wait for the first chunks one by one
const PATIENCE = 2000; // milliseconds after which it starts with less: a slow render has no more
const LOOKAHEAD = 30; // seconds of a converted file that are loaded before they are needed
const TYPES = { h264: 'video/mp4; codecs="avc1.640015"', vp9: 'video/webm; codecs="vp9"' };
const MISSING = "this browser lacks Media Source Extensions";
const Source = window.ManagedMediaSource ?? window.MediaSource;
const CODECS = Object.keys(TYPES).filter((codec) => Source?.isTypeSupported(TYPES[codec]));

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
    this.video.removeAttribute("src");
    this.video.load();
  }

  get idle() {
    return !this.video.src || Boolean(this.video.error);
  }

  // The file of a video, as far as it is written.
  async playFile(video, play) {
    this.close();
    const type = video.media_type === "video/mp4" ? TYPES.h264 : video.media_type;
    if (this.video.canPlayType(type)) {
      this.video.src = videoPath(video.id, video.state === "completed" ? "/content" : "/partial");
      if (play) this.play();
      return;
    }
    if (!CODECS.includes("vp9")) throw new Error("this browser plays neither H.264 nor VP9: download the video to watch it");
    await this.load(await this.fetch(videoPath(video.id, "/partial?codec=vp9")), { play, lookahead: LOOKAHEAD });
  }

  // A video that is being rendered, from a time on.
  async playLive(video, play) {
    this.close();
    for (const codec of CODECS) {
      const response = await this.fetch(videoPath(video.id, `/stream?codec=${codec}`), [501]);
      if (response.redirected) return this.playFile({ ...video, state: "completed" }, play);
      if (response.ok) return this.load(response, { play, start: video.frames / video.fps - EDGE });
    }
    const unplayable = Source ? "this browser plays neither H.264 nor VP9" : MISSING;
    const lacking = CODECS.length ? "the server encodes no codec that this browser plays" : unplayable;
    throw new Error(`${lacking} while a video is rendered: download it to watch it`);
  }

  async fetch(path, expected = []) {
    this.abort ??= new AbortController();
    const response = await fetch(path, { signal: this.abort.signal });
    if (response.redirected) response.body.cancel();
    else if (!response.ok && !expected.includes(response.status)) throw await responseError(response);
    return response;
  }

  async load(response, { play, start = 0, lookahead = Infinity }) {
    const { signal } = this.abort;
    const source = new Source();
    this.video.disableRemotePlayback = true; // which a ManagedMediaSource requires
    this.video.src = URL.createObjectURL(source);
    await once(source, "sourceopen");
    // A ManagedMediaSource says when it needs more.
    const isFull = () => this.ahead > (source.streaming === false ? EDGE : lookahead);
    const buffer = source.addSourceBuffer(response.headers.get("content-type"));
    const reader = response.body.getReader();
    let waiting = play;
    const startPlaying = () => { if (waiting && !signal.aborted) this.play(); waiting = false; };
    for (let begun = false; ; ) {
      const { done, value } = await reader.read();
      if (signal.aborted) return;
      if (done) break;
      await this.append(buffer, value, signal);
      if (!begun && (begun = this.begin(buffer, start))) setTimeout(startPlaying, PATIENCE);
      if (begun && this.ahead >= AHEAD) startPlaying();
      while (!signal.aborted && isFull()) await this.progress();
    }
    if (source.readyState === "open") source.endOfStream();
    startPlaying();
  }

  async append(buffer, data, signal) {
    const { currentTime } = this.video;
    if (currentTime > 2 * KEEP && buffer.buffered.length && buffer.buffered.start(0) < currentTime - 2 * KEEP) {
      buffer.remove(0, currentTime - KEEP);
      await once(buffer, "updateend");
    }
    while (!signal.aborted && !fits(buffer, data)) await this.progress();
    if (buffer.updating) await once(buffer, "updateend");
  }

  // Until more has been played, or a moment has passed.
  progress() {
    return Promise.race([once(this.video, "timeupdate"), new Promise((resolve) => setTimeout(resolve, 1000))]);
  }

  // Go to a time once it is there; false if it is not yet.
  begin(buffer, start) {
    const ranges = buffer.buffered;
    if (!ranges.length || ranges.end(ranges.length - 1) <= start) return false;
    const time = Math.max(start, ranges.start(0));
    if (time > 0) this.video.currentTime = time;
    return true;
  }

  play() {
    this.video.play().catch(() => {}); // a browser may not allow it before a click
  }

  seek(seconds) {
    this.video.currentTime = seconds;
    this.skipGap();
  }

  skipGap() {
    const { buffered, currentTime } = this.video;
    for (let index = 0; index < buffered.length; index++) {
      if (buffered.end(index) <= currentTime) continue;
      if (buffered.start(index) > currentTime + 0.05) this.video.currentTime = buffered.start(index);
      return;
    }
  }

  get ahead() {
    const { buffered, currentTime } = this.video;
    return buffered.length ? Math.max(0, buffered.end(buffered.length - 1) - currentTime) : 0;
  }
}

const once = (target, name) => new Promise((resolve) => target.addEventListener(name, resolve, { once: true }));

// Begin to append data; false if the memory is full of frames that are still to be played.
function fits(buffer, data) {
  try {
    buffer.appendBuffer(data);
    return true;
  } catch (error) {
    if (error.name !== "QuotaExceededError") throw error;
    return false;
  }
}
