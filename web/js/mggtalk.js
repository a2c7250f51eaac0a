// Live views in the page: a head that follows the sliders of Expression Editor, and the player of Preview Head.
// Results never depend on this file: everything it sets is a widget of the node, and works typed in as well.
import { app } from "../../../scripts/app.js";
import { api } from "../../../scripts/api.js";
import { HeadView } from "./view/head_view.js";
import { ExpressionPanel } from "./view/expression_panel.js";

const NODES = { MGGTalkExpressionEditor: addEditor, MGGTalkPreviewHead: addPreview };
const TOKENS = "mggtalk.views"; // of this tab: survives a reload, ends with the tab

function widget(node, name) {
    return node.widgets.find((each) => each.name === name);
}

function rememberedViews() {
    return JSON.parse(sessionStorage.getItem(TOKENS) ?? "{}");
}

function remember(nodeId, view) {
    sessionStorage.setItem(TOKENS, JSON.stringify({ ...rememberedViews(), [nodeId]: view }));
}

// A DOM widget that is drawn by the canvas and by Nodes 2.0 alike, and never saved with the workflow.
function addElement(node, element, height) {
    const domWidget = node.addDOMWidget("view", "MGGTALK_VIEW", element, {
        serialize: false,
        getMinHeight: () => height,
        hideOnZoom: false,
    });
    domWidget.serialize = false;
    node.setSize([Math.max(node.size[0], 400), Math.max(node.size[1], height + 140)]);
    return domWidget;
}

// Calls `changed` when a widget's value changes, by the user or by a loaded workflow.
function onChange(node, name, changed) {
    const target = widget(node, name);
    const before = target.callback;
    target.callback = function (...args) {
        before?.apply(this, args);
        changed(target.value);
    };
}

function setWidget(node, name, value) {
    const target = widget(node, name);
    target.value = value;
    target.callback?.(value);
}

// Widgets are written when a drag pauses: each write makes the page draw the whole node again.
function settled(write, wait = 150) {
    let timer = null;
    return (value) => {
        clearTimeout(timer);
        timer = setTimeout(() => write(value), wait);
    };
}

function attach(node, view) {
    node.mggtalk = view;
    view.onLost = () => remember(node.id, undefined);
    const removed = node.onRemoved;
    node.onRemoved = function () {
        removed?.apply(this, arguments);
        view.close();
    };
    const configured = node.onConfigure;
    node.onConfigure = function () {
        configured?.apply(this, arguments);
        view.refresh();
        const known = rememberedViews()[node.id];
        if (known) view.open(known);
    };
}

function addEditor(node) {
    const write = settled((edit) => setWidget(node, "expression", JSON.stringify(edit)));
    const panel = new ExpressionPanel((edit) => {
        view.render();
        write(edit);
    });
    const view = new HeadView(api, {
        request: () => ({ expression: JSON.stringify(panel.edit), mode: panel.mode }),
    });
    view.refresh = () => {
        panel.read(widget(node, "expression").value, widget(node, "mode").value);
        view.render();
    };
    onChange(node, "expression", view.refresh);
    onChange(node, "mode", view.refresh);
    view.main.append(panel.element);
    addElement(node, view.element, 640);
    attach(node, view);
    view.refresh();
}

function addPreview(node) {
    const write = settled((values) => {
        for (const [name, value] of Object.entries(values)) setWidget(node, name, value);
    });
    const view = new HeadView(api, { moved: write });
    view.refresh = () => {
        view.moveTo({
            frame: widget(node, "frame").value,
            yaw: widget(node, "yaw").value,
            pitch: widget(node, "pitch").value,
            distance: widget(node, "distance").value,
        });
    };
    for (const name of ["frame", "yaw", "pitch", "distance"]) onChange(node, name, view.refresh);
    addElement(node, view.element, 440);
    attach(node, view);
    view.refresh();
}

app.registerExtension({
    name: "mggtalk.views",
    setup() {
        // sent when a node ran, and again when a run finds it cached
        api.addEventListener("executed", ({ detail }) => {
            const view = detail.output?.mggtalk_view?.at(-1);
            if (!view) return;
            const id = detail.display_node ?? detail.node;
            remember(id, view);
            const node = app.graph.getNodeById(Number(id)) ?? app.graph.getNodeById(id);
            node?.mggtalk?.open(view);
        });
    },
    nodeCreated(node) {
        NODES[node.comfyClass]?.(node);
    },
});
