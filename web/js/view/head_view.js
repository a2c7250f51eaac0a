// A live picture of a head, rendered by the pack's own renderer: drag to orbit, wheel to come closer, play with sound.

const STYLE = `
:host { display: block; height: 100%; overflow: auto; }
main { display: flex; flex-direction: column; gap: 6px; font: 12px sans-serif; color: var(--input-text, #ddd);
    box-sizing: border-box; padding: 2px; }
canvas { width: 100%; aspect-ratio: 1; max-height: 384px; object-fit: contain; background: #1b1b1b;
    border-radius: 6px; touch-action: none; cursor: grab; flex: none; }
.row { display: flex; gap: 6px; align-items: center; flex: none; }
button { background: var(--comfy-input-bg, #333); color: inherit; border: 1px solid var(--border-color, #555);
    border-radius: 4px; padding: 2px 8px; cursor: pointer; }
input[type=range] { flex: 1; min-width: 40px; }
.note { opacity: 0.75; min-height: 1.2em; flex: none; }
summary { cursor: pointer; padding: 2px 0; }
label.slider { display: grid; grid-template-columns: 9.5em 1fr 3.2em; gap: 6px; align-items: center; }
label.slider.set { color: var(--p-primary-color, #6cf); }
.pad { position: relative; width: 84px; height: 84px; border: 1px solid var(--border-color, #555);
    border-radius: 6px; background: var(--comfy-input-bg, #222); touch-action: none; cursor: crosshair; }
.pad i { position: absolute; width: 10px; height: 10px; margin: -5px; border-radius: 50%;
    background: var(--p-primary-color, #6cf); pointer-events: none; }
`;

export function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
}

export class HeadView {
    // `request` gives what is sent besides camera and frame; `moved` is told {frame, yaw, pitch, distance} the user chose.
    constructor(api, { request = () => ({}), moved = () => {} } = {}) {
        Object.assign(this, { api, request, moved });
        this.yaw = this.pitch = this.frame = 0;
        this.distance = 1;
        this.view = null; // what the server told: token, frames, fps, sound
        this.updates = 0; // pictures shown so far
        this.canvas = make("canvas", { width: 384, height: 384, title: "Drag to orbit, wheel for distance" });
        this.note = make("div", { className: "note", textContent: "Queue the workflow once to see the head here." });
        this.playButton = make("button", { textContent: "▶", title: "Play" });
        this.scrub = make("input", { type: "range", min: 0, max: 0, value: 0, title: "Frame" });
        this.frameLabel = make("span", { textContent: "0" });
        this.transport = make("div", { className: "row" }, this.playButton, this.scrub, this.frameLabel);
        this.front = make("button", { textContent: "Front", title: "Back to the photo's view" });
        this.transport.append(this.front);
        // in a shadow root: our styles touch nobody else's page, theirs not ours
        this.main = make("main", {}, this.canvas, this.transport, this.note);
        this.element = make("div", { className: "mggtalk" });
        this.element.attachShadow({ mode: "open" }).append(make("style", { textContent: STYLE }), this.main);
        this.sound = new Audio();
        this.#listen();
    }

    #listen() {
        let last = null;
        this.canvas.addEventListener("pointerdown", (event) => {
            event.stopPropagation();
            this.canvas.setPointerCapture(event.pointerId);
            last = event;
        });
        this.canvas.addEventListener("pointermove", (event) => {
            if (!last) return;
            event.stopPropagation();
            const degrees = 90 / this.canvas.clientWidth;
            // dragging the head to the left shows its right side: the camera goes to the right
            this.#setCamera(this.yaw - (event.clientX - last.clientX) * degrees,
                            this.pitch + (event.clientY - last.clientY) * degrees, this.distance);
            last = event;
        });
        this.canvas.addEventListener("pointerup", () => (last = null));
        this.canvas.addEventListener("wheel", (event) => {
            event.preventDefault();
            event.stopPropagation();
            this.#setCamera(this.yaw, this.pitch, this.distance * Math.exp(event.deltaY / 1000));
        }, { passive: false });
        this.front.addEventListener("click", () => this.#setCamera(0, 0, 1));
        this.scrub.addEventListener("input", () => {
            this.pause();
            this.#showFrame(Number(this.scrub.value));
            this.#tell();
        });
        this.playButton.addEventListener("click", () => (this.playing ? this.pause() : this.play()));
    }

    #setCamera(yaw, pitch, distance) {
        const limit = (value, low, high) => Math.min(high, Math.max(low, value));
        this.yaw = Math.round(limit(yaw, -90, 90) * 10) / 10;
        this.pitch = Math.round(limit(pitch, -90, 90) * 10) / 10;
        this.distance = Math.round(limit(distance, 0.3, 4) * 100) / 100;
        this.#tell();
        this.render();
    }

    #tell() {
        const { frame, yaw, pitch, distance } = this;
        this.moved({ frame, yaw, pitch, distance });
    }

    #showFrame(index) {
        this.frame = index;
        this.scrub.value = index;
        this.frameLabel.textContent = String(index);
        this.render();
    }

    // Camera and frame set from outside (the node's widgets); nobody is told.
    moveTo({ frame, yaw, pitch, distance }) {
        if (this.frame === frame && this.yaw === yaw && this.pitch === pitch && this.distance === distance) return;
        Object.assign(this, { yaw, pitch, distance });
        this.#showFrame(frame);
    }

    // Shows the head the server offers: {token, frames, fps, sound}.
    open(view) {
        if (this.view?.token === view.token) return;
        this.pause();
        this.view = view;
        this.scrub.max = view.frames - 1;
        this.playButton.disabled = this.scrub.disabled = view.frames < 2;
        this.sound.src = view.sound ? this.api.apiURL(view.sound) : "";
        this.note.textContent = "";
        this.#showFrame(Math.min(this.frame, view.frames - 1));
    }

    play() {
        if (!this.view || this.view.frames < 2) return;
        const duration = this.view.frames / this.view.fps;
        let start = this.frame + 1 >= this.view.frames ? 0 : this.frame / this.view.fps;
        const began = performance.now();
        if (this.view.sound) {
            this.sound.currentTime = start;
            this.sound.play();
        }
        this.playing = true;
        this.playButton.textContent = "❚❚";
        const step = () => {
            if (!this.playing) return;
            const elapsed = (performance.now() - began) / 1000;
            // the sound is the clock when there is one: lips never drift from it
            const time = this.view.sound && !this.sound.ended ? this.sound.currentTime : start + elapsed;
            if (time >= duration) return this.pause();
            const index = Math.min(this.view.frames - 1, Math.floor(time * this.view.fps));
            if (index !== this.frame) this.#showFrame(index);
            requestAnimationFrame(step);
        };
        step();
    }

    pause() {
        if (!this.playing) return;
        this.playing = false;
        this.playButton.textContent = "▶";
        this.sound.pause();
        this.#tell();
    }

    // Asks for a new picture; while one is on its way only the newest wish is kept.
    render() {
        this.wanted = true;
        if (!this.busy) this.#fetchPictures();
    }

    async #fetchPictures() {
        this.busy = true;
        while (this.wanted && this.view) {
            this.wanted = false;
            const { frame, yaw, pitch, distance } = this;
            const wish = { frame, yaw, pitch, distance, size: this.canvas.width, ...this.request() };
            try {
                const response = await this.#post(this.view.token, wish);
                if (response.ok) {
                    const picture = await createImageBitmap(await response.blob());
                    this.canvas.getContext("2d").drawImage(picture, 0, 0, this.canvas.width, this.canvas.height);
                    this.updates += 1;
                    this.element.dataset.updates = this.updates;
                    this.note.textContent = "";
                } else {
                    this.note.textContent = await response.text();
                    if (response.status === 404) {
                        this.view = null;
                        this.onLost?.();
                    }
                }
            } catch (error) {
                this.note.textContent = `No answer from ComfyUI (${error.message}).`;
                break;
            }
        }
        this.busy = false;
    }

    #post(path, body) {
        return this.api.fetchApi(`/mggtalk/view/${path}`, {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify(body),
        });
    }

    // Frees the head on the server.
    close() {
        this.pause();
        if (this.view) this.#post(`${this.view.token}/close`, {});
        this.view = null;
    }
}
