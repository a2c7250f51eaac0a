// Sliders for ARKit's 52 shapes grouped by face part, a gaze pad per eye and the head's angles.
import { make } from "./head_view.js";

const sided = (...names) => names.flatMap((name) => [`${name}Left`, `${name}Right`]);
const GROUPS = {
    Head: ["headYaw", "headPitch", "headRoll"],
    Jaw: ["jawOpen", "jawForward", "jawLeft", "jawRight"],
    Mouth: [
        "mouthClose", "mouthFunnel", "mouthPucker", "mouthLeft", "mouthRight",
        ...sided("mouthSmile", "mouthFrown", "mouthDimple", "mouthStretch"),
        "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
        ...sided("mouthPress", "mouthLowerDown", "mouthUpperUp"), "tongueOut",
    ],
    Eyes: sided("eyeBlink", "eyeSquint", "eyeWide"),
    Brows: [...sided("browDown"), "browInnerUp", ...sided("browOuterUp")],
    "Cheeks and nose": ["cheekPuff", ...sided("cheekSquint", "noseSneer")],
};
const NEUTRAL = { add: 0, replace: 0, multiply: 1 };
const RANGE = { add: [-1, 1], replace: [0, 1], multiply: [0, 2] };
const DEGREES = 45;

// What the text widget holds: JSON, or name=value pairs typed by hand.
function parse(text) {
    try {
        return text.trim().startsWith("{")
            ? JSON.parse(text)
            : Object.fromEntries(text.split(/[,;\s]+/).filter(Boolean).map((part) => {
                  const [name, value] = part.split("=");
                  return [name, Number(value)];
              }));
    } catch {
        return {};
    }
}

export class ExpressionPanel {
    constructor(changed) {
        this.changed = changed;
        this.edit = {};
        this.mode = "add";
        this.sliders = {};
        this.pads = [];
        this.element = make("div");
        for (const [title, names] of Object.entries(GROUPS)) {
            this.element.append(this.#group(title, names.map((name) => this.#slider(name)), title === "Head"));
        }
        const pads = make("div", { className: "row" }, this.#gazePad("Right"), this.#gazePad("Left"));
        this.element.insertBefore(this.#group("Gaze", [pads], true), this.element.children[1]);
        const reset = make("button", { textContent: "Reset all" });
        reset.addEventListener("click", () => this.#set({}));
        this.element.append(reset);
    }

    #group(title, children, open) {
        return make("details", { open }, make("summary", { textContent: title }), ...children);
    }

    #slider(name) {
        const input = make("input", { type: "range", step: 0.01 });
        input.dataset.shape = name;
        const value = make("span");
        const label = make("label", { className: "slider" }, make("span", { textContent: name }), input, value);
        input.addEventListener("input", () => this.#set({ ...this.edit, [name]: Number(input.value) }));
        label.addEventListener("dblclick", () => {
            const { [name]: _, ...rest } = this.edit; // a double click lets go of the shape
            this.#set(rest);
        });
        this.sliders[name] = { label, input, value };
        return label;
    }

    // The subject's right eye is on the left of the picture, so its pad is too.
    #gazePad(side) {
        const dot = make("i");
        const pad = make("div", { className: "pad", title: `${side} eye: drag to look, double click to let go` }, dot);
        pad.dataset.eye = side;
        const [toLeft, toRight] = side === "Left" ? ["In", "Out"] : ["Out", "In"];
        const names = { left: `eyeLook${toLeft}${side}`, right: `eyeLook${toRight}${side}`,
                        up: `eyeLookUp${side}`, down: `eyeLookDown${side}` };
        const look = (event) => {
            const box = pad.getBoundingClientRect();
            const x = Math.max(-1, Math.min(1, (2 * (event.clientX - box.left)) / box.width - 1));
            const y = Math.max(-1, Math.min(1, (2 * (event.clientY - box.top)) / box.height - 1));
            const round = (number) => Math.round(number * 100) / 100;
            this.#set({ ...this.edit, [names.left]: round(Math.max(0, -x)), [names.right]: round(Math.max(0, x)),
                        [names.up]: round(Math.max(0, -y)), [names.down]: round(Math.max(0, y)) });
        };
        let dragging = false;
        pad.addEventListener("pointerdown", (event) => {
            event.stopPropagation();
            pad.setPointerCapture(event.pointerId);
            dragging = true;
            look(event);
        });
        pad.addEventListener("pointermove", (event) => dragging && look(event));
        pad.addEventListener("pointerup", () => (dragging = false));
        pad.addEventListener("dblclick", () => {
            this.#set(Object.fromEntries(Object.entries(this.edit).filter(([name]) => !Object.values(names).includes(name))));
        });
        this.pads.push({ dot, names });
        return make("div", {}, make("div", { textContent: `${side} eye` }), pad);
    }

    #set(edit) {
        this.edit = edit;
        this.#show();
        this.changed(edit);
    }

    // Takes over what the node's widgets hold.
    read(text, mode) {
        this.edit = parse(text);
        this.mode = mode;
        this.#show();
    }

    #show() {
        for (const [name, { label, input, value }] of Object.entries(this.sliders)) {
            const angle = name.startsWith("head") && this.mode !== "multiply";
            const [low, high] = angle ? [-DEGREES, DEGREES] : RANGE[this.mode];
            Object.assign(input, { min: low, max: high, step: angle ? 0.5 : 0.01 });
            const given = name in this.edit;
            input.value = given ? this.edit[name] : NEUTRAL[this.mode];
            value.textContent = given ? String(this.edit[name]) : "–";
            label.classList.toggle("set", given);
        }
        for (const { dot, names } of this.pads) {
            const at = (name) => this.edit[name] ?? 0;
            dot.style.left = `${50 + 50 * (at(names.right) - at(names.left))}%`;
            dot.style.top = `${50 + 50 * (at(names.down) - at(names.up))}%`;
        }
    }
}
