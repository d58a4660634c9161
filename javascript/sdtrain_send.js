// Handing things on: paths and settings to the clipboard, runs into the forms, pictures to and from the WebUI's own tabs.
(function () {
    "use strict";

    const app = window.sdtrain = window.sdtrain || {};
    const COPIED_MS = 4000;

    // Text to the clipboard; pages that are not served over https or from this machine have no clipboard of their own.
    app.copy = async (text) => {
        if (navigator.clipboard && window.isSecureContext) {
            try {
                await navigator.clipboard.writeText(text);
                return true;
            } catch (error) { // not allowed; the old way may be
            }
        }
        const box = document.createElement("textarea");
        box.value = text;
        box.style.position = "fixed";
        document.body.append(box);
        box.select();
        const copied = document.execCommand("copy");
        box.remove();
        return copied;
    };

    // Tells on the pressed button that the text is on the clipboard, or that it has to be taken by hand.
    app.copied = async (pressed, text) => {
        const button = app.byId(pressed);
        if (!text || !button) return; // a mistake in the form is told instead
        button.dataset.copied = await app.copy(text) ? "copied" : "select it below and copy it";
        setTimeout(() => { delete button.dataset.copied; }, COPIED_MS);
    };

    app.download = (name, text) => {
        if (!text) return;
        const link = document.createElement("a");
        link.href = URL.createObjectURL(new Blob([text], {type: "text/yaml"}));
        link.download = name;
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    };

    app.openSubTab = (name) => {
        const buttons = [...app.byId("sdtrain_tabs").querySelectorAll("button")];
        const found = buttons.find((button) => button.textContent.trim() === name);
        if (found) found.click();
    };

    // Settings from elsewhere go into the Train form: {task}, {run}, {infotext} or {name, text} of a file.
    app.fillTrain = (source) => {
        app.wishes.train.send(source);
        app.openSubTab("Train");
        app.leaveRun();
    };

    // An earlier merge or a merged file goes into the Merge form.
    app.fillMerge = (source) => {
        app.wishes.merge.send(source);
        app.openSubTab("Merge");
    };

    // The infotext in a PNG's text chunk `parameters` (PNG specification, 11.3.3); empty when there is none.
    async function infotextOf(file) {
        const view = new DataView(await file.arrayBuffer());
        const bytes = (at, length) => new Uint8Array(view.buffer, at, length);
        const read = (part, words) => new TextDecoder(words).decode(part);
        for (let at = 8; at + 12 <= view.byteLength;) {
            const length = view.getUint32(at), kind = read(bytes(at + 4, 4), "latin1");
            if (at + 12 + length > view.byteLength) return "";
            if (kind === "tEXt" || kind === "iTXt") {
                const part = bytes(at + 8, length), end = part.indexOf(0);
                if (read(part.subarray(0, end), "latin1") === "parameters") {
                    if (kind === "tEXt") return read(part.subarray(end + 1), "latin1");
                    const language = part.indexOf(0, end + 3), translated = part.indexOf(0, language + 1);
                    return part[end + 1] ? "" : read(part.subarray(translated + 1), "utf-8");
                }
            }
            at += 12 + length;
        }
        return "";
    }
    app.infotextOf = infotextOf;

    async function loadFile(file) {
        if (/\.png$/i.test(file.name)) app.fillTrain({infotext: await infotextOf(file) || "this picture holds no infotext"});
        else app.fillTrain({name: file.name, text: await file.text()});
    }

    // The WebUI's own tabs read an infotext from their prompt box when its arrow is pressed.
    const prompt = () => app.root().querySelector("#txt2img_prompt textarea");

    app.toTxt2img = (infotext) => {
        const box = prompt(), arrow = app.root().querySelector("#txt2img_tools #paste, #paste");
        if (!box || !arrow) return;
        box.value = infotext;
        box.dispatchEvent(new Event("input", {bubbles: true}));
        setTimeout(() => {
            arrow.click();
            if (typeof window.switch_to_txt2img === "function") window.switch_to_txt2img();
        }, 200); // the page's framework takes the text in first
    };

    // What can be done with a drawn picture, below it.
    app.addPictureActs = (figure, infotext) => {
        if (!infotext.includes("\nSteps: ")) return;
        const line = document.createElement("div");
        line.className = "sdtrain-picture-acts";
        const act = (text, title, run) => {
            const button = document.createElement("button");
            button.type = "button";
            [button.textContent, button.title] = [text, title];
            button.addEventListener("click", async () => {
                if (await run() === true) {
                    button.textContent = "copied";
                    setTimeout(() => { button.textContent = text; }, 1500);
                }
            });
            line.append(button);
        };
        if (prompt()) act("→ txt2img", "Put its prompt, seed, sampler and size into txt2img", () => app.toTxt2img(infotext));
        act("copy", "Copy its infotext", () => app.copy(infotext));
        figure.append(line);
    };

    // A button beside the WebUI's own “Send to”, which hands the shown picture's words to the previews.
    function addSender(place, id, infotextOf) {
        if (!place || app.byId(id)) return;
        const like = place.querySelector("button");
        const button = document.createElement("button");
        button.id = id;
        button.type = "button";
        button.className = like ? like.className : "";
        button.textContent = like && like.textContent.trim().length < 3 ? "🎓" : "Send to SD Train";
        button.title = "Draw this picture while training: adds its prompt, sampler, clip skip and hires settings to the previews";
        button.addEventListener("click", () => {
            const infotext = infotextOf();
            if (!infotext) return;
            app.fillTrain({preview: infotext});
            const tab = [...app.root().querySelectorAll("#tabs > .tab-nav button")].find((one) => one.textContent.trim() === "SD Train");
            if (tab) tab.click();
        });
        place.append(button);
    }

    function shownInfotext(name) {
        const info = app.root().querySelector(`#generation_info_${name} textarea`);
        if (!info || !info.value) return "";
        const found = JSON.parse(info.value);
        const index = typeof window.selected_gallery_index === "function" ? window.selected_gallery_index() : 0;
        return found.infotexts[Math.max(0, index)] || found.infotexts[0] || "";
    }

    app.onReady(() => {
        app.root().addEventListener("change", (event) => {
            const box = event.target;
            if (!box.matches || !box.matches("input[type=file][data-part=load-file]") || !box.files.length) return;
            loadFile(box.files[0]);
            box.value = "";
        });
        if (!prompt()) return; // not in the WebUI
        addSender(app.root().querySelector("#image_buttons_txt2img .form, #image_buttons_txt2img"), "txt2img_send_to_sdtrain", () => shownInfotext("txt2img"));
        const ofPng = app.root().querySelector("#pnginfo_send_to_txt2img, #tab_pnginfo #txt2img_tab");
        const pngRow = ofPng ? ofPng.parentElement : null;
        addSender(pngRow, "pnginfo_send_to_sdtrain", () => {
            const box = app.root().querySelector("#pnginfo_generation_info textarea, #tab_pnginfo textarea");
            return box ? box.value : "";
        });
    });
})();
