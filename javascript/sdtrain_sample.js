// The Sample sub-tab's result: progress, pictures, comparison and grid, recent pictures, and reading infotexts.
(function () {
    "use strict";

    const app = window.sdtrain;
    const ENDED = {finished: "done", stopped: "stopped", failed: "failed"};
    const SHEET = -1, SMALL = 320, PASTE_MS = 60, KEYS_SETTLE_MS = 500, LONG_FIX = 90;

    // What is shown: pictures as [{url, infotext, label}], `chosen` of them, how two are compared.
    let shown = [], chosen = 0, mode = "side", comparing = false, drawn = "", began = {}, lastEnd = "";

    const page = () => app.byId("sdtrain_sample");
    const part = (name) => app.byId("sdtrain_sample_result").querySelector(`[data-part="${name}"]`);
    const address = (path) => new URL("sdtrain/v1/" + path, document.baseURI).href;

    const element = app.element;

    function picture(one) {
        const image = element("img");
        image.addEventListener("load", () => image.classList.toggle("sds-small", image.naturalWidth < SMALL));
        image.src = one.url;
        image.alt = one.infotext.split("\n")[0] || "picture";
        return image;
    }

    function framed(one) {
        const figure = element("figure");
        figure.append(picture(one), ...(one.label ? [element("figcaption", one.label)] : []));
        return figure;
    }

    // Two pictures of one size laid over each other, the second cut off at the swipe.
    function swiped(two) {
        const figure = element("figure"), over = element("div", "", "sds-over"), slider = element("input");
        over.append(picture(two[0]), picture(two[1]));
        Object.assign(slider, {type: "range", min: 0, max: 100, value: 50, className: "sds-swipe"});
        slider.setAttribute("aria-label", "Where the first picture ends and the second begins");
        const cut = () => { over.lastChild.style.clipPath = `inset(0 0 0 ${slider.value}%)`; };
        slider.addEventListener("input", cut);
        cut();
        figure.append(over, slider, element("figcaption", `left: ${two[0].label} · right: ${two[1].label}`));
        return figure;
    }

    function difference(two) {
        const figure = element("figure"), over = element("div", "", "sds-over");
        over.dataset.kind = "difference";
        over.append(picture(two[0]), picture(two[1]));
        figure.append(over, element("figcaption", "black where both are the same; three times as bright as it is"));
        return figure;
    }

    function show() {
        const two = comparing && shown.length === 2, one = shown[chosen];
        part("empty").hidden = Boolean(one);
        part("tools").hidden = part("words").hidden = !one;
        part("modes").hidden = !two;
        const viewer = part("viewer");
        viewer.dataset.mode = two ? mode : "one";
        if (!one) return viewer.replaceChildren();
        const figures = {side: () => shown.map(framed), swipe: () => [swiped(shown)], difference: () => [difference(shown)]};
        viewer.replaceChildren(...(two ? figures[mode]() : [framed(one)]));
        part("words").textContent = one.infotext;
        for (const button of part("modes").children) button.setAttribute("aria-pressed", button.dataset.mode === mode);
        part("strip").replaceChildren(...(shown.length > 1 && !two ? shown.map((each, index) => thumbnail(each, () => {
            chosen = index;
            show();
        }, index === chosen)) : []));
    }

    function thumbnail(one, press, on) {
        const button = element("button"), image = element("img");
        button.type = "button";
        button.title = one.label || one.infotext.split("\n")[0];
        button.setAttribute("aria-pressed", Boolean(on));
        image.src = one.url;
        image.alt = button.title;
        image.loading = "lazy";
        button.append(image);
        button.addEventListener("click", press);
        return button;
    }

    function picturesOf(job) {
        const labels = (job.end && job.end.result && job.end.result.labels) || [];
        const found = [];
        for (const step of [...job.previews.keys()].sort((a, b) => a - b)) { // a grid's sheet has the lowest number
            for (const [index, infotext] of job.previews.get(step)) {
                const url = address(`job/${job.id}/preview/${step}/${index}`);
                found.push({url, infotext, label: step === SHEET ? "the whole grid" : labels[step] || ""});
            }
        }
        return found;
    }

    function showPictures(job) {
        const found = picturesOf(job), key = job.id + "/" + found.length + "/" + Boolean(job.end);
        if (key === drawn || !found.length) return;
        const fresh = !drawn.startsWith(job.id + "/");
        drawn = key;
        comparing = job.label === "a comparison";
        shown = found;
        chosen = job.previews.has(SHEET) || fresh ? 0 : Math.min(chosen, found.length - 1);
        show();
    }

    function duration(seconds) {
        return seconds < 90 ? Math.max(1, Math.round(seconds)) + " s" : Math.round(seconds / 60) + " min";
    }

    // Pictures done and the share of the one being drawn.
    function fraction(job) {
        if (job.state === "finished") return 1;
        const done = [...job.previews].reduce((sum, [step, of]) => sum + (step === SHEET ? 0 : of.size), 0);
        const phase = job.phase && job.phase.unit === "steps" && job.phase.total ? job.phase.done / job.phase.total : 0;
        return job.total ? Math.min(1, (done + Math.min(phase, 1)) / job.total) : 0;
    }

    function statusOf(job) {
        if (ENDED[job.state]) return job.end && job.end.result && job.end.result.seconds
            ? `${ENDED[job.state]} in ${duration(job.end.result.seconds)}` : ENDED[job.state];
        if (job.asked) return "stopping";
        if (job.state === "waiting") return "waiting for the machine";
        const phase = job.phase;
        if (!phase) return "starting";
        return phase.unit === "steps" ? `${phase.name}, step ${phase.done} of ${phase.total}` : phase.name;
    }

    function timeLeft(job) {
        const share = fraction(job), now = Date.now() / 1000;
        if (job.state !== "running" || !share) return "";
        if (began.id !== job.id) began = {id: job.id, time: now, share};
        if (share - began.share < 0.02 || now - began.time < 1) return "";
        return `${duration((now - began.time) * (1 - share) / (share - began.share))} left`;
    }

    function list(target, lines, className) {
        if (target.dataset.lines === String(lines)) return;
        target.dataset.lines = String(lines);
        if (target.tagName === "UL") return target.replaceChildren(...lines.map((text) => element("li", text)));
        const items = element("ul", "", className);
        for (const text of lines) items.appendChild(element("li", "")).appendChild(element("b", text));
        target.replaceChildren(...(lines.length ? [items] : []));
    }

    async function showRecent() {
        const answer = await fetch(address("sample/recent"), {credentials: "same-origin"}).catch(() => null);
        if (!answer || !answer.ok) return;
        const pictures = (await answer.json()).pictures.map((one) => (
            {url: address("sample/picture/" + one.id), infotext: one.infotext, label: ""}
        ));
        part("recent-box").hidden = !pictures.length;
        part("recent").replaceChildren(...pictures.map((one) => thumbnail(one, () => {
            [shown, chosen, comparing] = [[one], 0, false];
            show();
        })));
    }

    app.views.push((train, job) => {
        const own = page();
        if (!own) return;
        const mine = job && job.kind === "sample";
        const busy = job && (job.state === "waiting" || job.state === "running");
        part("elsewhere").textContent = busy && !mine ? `“${job.label}” has the machine now; draw when it is done.` : "";
        own.dataset.state = mine ? job.state : "idle";
        for (const name of ["label", "status", "rate"]) part(name).textContent = "";
        if (!mine) return;
        part("label").textContent = job.label;
        part("status").textContent = train.dataset.offline ? "the server does not answer; trying again" : statusOf(job);
        part("rate").textContent = timeLeft(job);
        const percent = Math.round(fraction(job) * 1000) / 10;
        part("bar").style.width = percent + "%";
        part("bar").parentElement.setAttribute("aria-valuenow", percent);
        list(part("problems"), job.state === "failed" ? job.problems : [], "sdtrain-problems");
        list(part("notices"), job.notices.slice(-6));
        showPictures(job);
        const end = ENDED[job.state] ? job.id : "";
        if (end && end !== lastEnd) {
            lastEnd = end;
            showRecent();
        }
    });

    function box(id) {
        const holder = app.byId(id);
        return holder && holder.querySelector("textarea, input");
    }

    function write(target, text) {
        target.value = text;
        target.dispatchEvent(new Event("input", {bubbles: true}));
    }

    // Into the box, then read: the boxes below follow.
    function use(text) {
        write(box("sdtrain_sample_infotext"), text);
        setTimeout(() => app.press("sdtrain_sample_read"), PASTE_MS);
    }

    function send(text) {
        write(box("txt2img_prompt"), text);
        const paste = app.root().querySelector("#txt2img_tools #paste, #paste");
        setTimeout(() => {
            if (paste) paste.click();
            if (typeof window.switch_to_txt2img === "function") window.switch_to_txt2img();
        }, PASTE_MS);
    }

    function mistakesBesideControls(own) {
        const plan = app.byId("sdtrain_sample_plan");
        new MutationObserver(() => {
            for (const old of own.querySelectorAll(".sdtrain-mistake")) old.remove();
            for (const old of own.querySelectorAll(".sdtrain-wrong")) old.classList.remove("sdtrain-wrong");
            for (const line of plan.querySelectorAll("[data-control]")) {
                const control = line.dataset.control && app.byId(line.dataset.control);
                if (!control) continue;
                const fix = line.childNodes[1] ? line.childNodes[1].textContent : "";
                const words = line.firstChild.textContent + (fix.length > LONG_FIX ? "" : fix); // whole in the plan
                control.classList.add("sdtrain-wrong");
                control.appendChild(element("div", words, "sdtrain-mistake"));
                const folded = control.closest("#sdtrain_sample_more, #sdtrain_sample_grid, #sdtrain_sample_comparing");
                const opener = folded && folded.querySelector(".label-wrap:not(.open)");
                if (opener) opener.click();
            }
        }).observe(plan, {childList: true, subtree: true});
    }

    app.onReady(() => {
        const own = page();
        if (!own) return;
        part("tools").querySelector('[data-do="send"]').hidden = !app.byId("txt2img_prompt");
        own.addEventListener("click", (event) => {
            const button = event.target.closest("button");
            if (!button) return;
            const one = shown[chosen];
            if (button.id === "sdtrain_sample_start") app.pollEagerly();
            else if (button.id === "sdtrain_sample_stop") app.pollSoon(200);
            else if (button.dataset.mode) {
                mode = button.dataset.mode;
                show();
            } else if (button.dataset.do === "use") use(one.infotext);
            else if (button.dataset.do === "copy") app.copy(one.infotext);
            else if (button.dataset.do === "send") send(one.infotext);
        });
        let settling = null;
        own.addEventListener("input", (event) => {
            const typed = event.target.closest(".sdtrain-field");
            if (!typed || event.target.matches("input[type=range], input[type=checkbox], input[type=radio]")) return;
            clearTimeout(settling);
            settling = setTimeout(app.forms.sample.changed, KEYS_SETTLE_MS);
        });
        box("sdtrain_sample_infotext").addEventListener("paste", () => {
            setTimeout(() => app.press("sdtrain_sample_read"), PASTE_MS);
        });
        mistakesBesideControls(own);
        app.press("sdtrain_sample_load");
        showRecent();
    });
})();
