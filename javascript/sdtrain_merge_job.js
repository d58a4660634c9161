// The Merge sub-tab's jobs: merging, comparing, drawing; mistakes beside their controls; what came of it.
(function () {
    "use strict";

    const app = window.sdtrain;
    const MERGE = "merge", DIFFERENCE = "merge-difference", PICTURES = "merge-pictures";
    const DISMISSED = "sdtrain.merge.dismissed";
    const ENDED = {finished: "done", stopped: "stopped, nothing was written", failed: "failed"};
    const TITLES = {[MERGE]: "Merging", [DIFFERENCE]: "Comparing", [PICTURES]: "Drawing"};
    let pace = null, lastKey = "", pressed = ""; // the job that was to stop
    let expecting = false; // started from this page: its end counts even if nothing was seen of its way

    const part = (name) => app.byId("sdtrain_merge_run").querySelector(`[data-part="${name}"]`);

    const {element, duration} = app;

    const active = (job) => job.state === "waiting" || job.state === "running";

    function amount(phase) {
        if (phase.total <= 1) return "";
        if (phase.unit !== "bytes") return `${phase.done}/${phase.total} ${phase.unit}`;
        const [size, name] = phase.total >= 1e9 ? [1e9, "GB"] : [1e6, "MB"];
        return `${(phase.done / size).toFixed(1)}/${(phase.total / size).toFixed(1)} ${name}`;
    }

    // How fast the present phase goes, from its first and its latest sign.
    function rateOf(job) {
        const phase = job.phase;
        if (job.state !== "running" || !phase || !phase.unit) return "";
        if (!pace || pace.key !== job.id + phase.name) pace = {key: job.id + phase.name, time: phase.time, done: phase.done};
        const seconds = phase.time - pace.time, done = phase.done - pace.done;
        if (seconds <= 0.2 || done <= 0) return "";
        const speed = done / seconds, left = (phase.total - phase.done) / speed;
        const told = phase.unit === "bytes" ? Math.round(speed / 1e6) + " MB/s" : speed.toFixed(1) + " " + phase.unit + "/s";
        return left > 0.5 ? `${told}, ${duration(left)} left` : told;
    }

    function statusOf(job) {
        if (ENDED[job.state]) return job.state === "stopped" && job.kind !== MERGE ? "stopped" : ENDED[job.state];
        if (pressed === job.id || job.asked) return "stopping";
        if (job.state === "waiting") return "waiting for the machine";
        return job.phase ? `${job.phase.name} ${amount(job.phase)}` : "beginning";
    }

    function fraction(job) {
        if (job.state === "finished") return 1;
        return job.phase && job.phase.total ? job.phase.done / job.phase.total : 0;
    }

    function list(target, lines) {
        if (target.dataset.lines === String(lines)) return;
        target.dataset.lines = String(lines);
        target.replaceChildren(...lines.map((text) => element("li", text)));
    }

    function showEnd(job) {
        const problems = part("problems"), target = part("result");
        const key = job.id + job.state;
        if (target.dataset.key === key) return;
        target.dataset.key = key;
        const lines = element("ul", "", "sdtrain-problems");
        for (const text of job.state === "failed" ? job.problems : []) lines.appendChild(element("li")).appendChild(element("b", text));
        problems.replaceChildren(...(lines.children.length ? [lines] : []));
        target.replaceChildren();
        const result = job.state === "finished" && job.kind === MERGE && job.end && job.end.result;
        if (!result) return;
        target.append("The model: ", element("code", result.out), ` [${result.sha256.slice(0, 10)}], in ${duration(result.seconds)}`);
    }

    const resultFile = (job) => (job && job.kind === MERGE && job.state === "finished" && job.end ? job.end.result.out : "");

    function showPictures(job) {
        const holder = app.byId("sdtrain_merge_rows");
        const count = [...job.previews.values()].reduce((sum, shown) => sum + shown.size, 0);
        const key = `${job.id}/${count}`;
        if (!count || holder.dataset.key === key) return;
        holder.dataset.key = key;
        holder.replaceChildren(...[...job.previews].sort((a, b) => a[0] - b[0]).map(([step, shown]) => {
            const line = element("div", "", "sdm-pictures-row"), first = [...shown.values()][0] || "";
            line.append(element("b", first.slice(0, first.indexOf(": "))));
            for (const [index, infotext] of [...shown].sort((a, b) => a[0] - b[0])) {
                const figure = element("figure"), image = element("img");
                image.src = new URL(`sdtrain/v1/job/${job.id}/preview/${step}/${index}`, document.baseURI);
                image.alt = image.title = infotext;
                figure.append(image, element("figcaption", infotext.slice(infotext.indexOf(": ") + 2)));
                line.append(figure);
            }
            return line;
        }));
    }

    function ended(job) {
        expecting = false;
        app.press("sdtrain_merge_ended");
        if (job.kind !== MERGE || job.state !== "finished") return;
        if (app.byId("refresh_sd_model_checkpoint")) app.press("refresh_sd_model_checkpoint");
        app.press("sdtrain_train_refresh");
    }

    function showOthers(own, job) {
        const busy = Boolean(job && active(job) && !TITLES[job.kind]);
        own.dataset.busy = String(busy);
        const step = busy && job.step ? `, step ${job.step} of ${job.total}` : "";
        app.byId("sdtrain_merge_busy").textContent = busy
            ? `${job.label} has the machine${step}; a merge can start when it has ended.` : "";
        return Boolean(job && TITLES[job.kind]);
    }

    app.views.push((page, job) => {
        const own = app.byId("sdtrain_merge");
        if (!own || !app.byId("sdtrain_merge_run")) return;
        if (!showOthers(own, job)) {
            own.dataset.state = "idle";
            own.dataset.result = "false";
            return;
        }
        const key = job.id + job.state;
        if (ENDED[job.state] && (lastKey || expecting) && lastKey !== key) ended(job);
        lastKey = key;
        // a comparison's or a drawing's answer stands elsewhere on the page
        const silent = job.state === "finished" && job.kind !== MERGE;
        const dismissed = ENDED[job.state] && sessionStorage.getItem(DISMISSED) === job.id;
        own.dataset.state = silent || dismissed ? "idle" : job.state;
        own.dataset.result = String(Boolean(ENDED[job.state]) && own.dataset.state !== "idle");
        own.dataset.usable = String(Boolean(resultFile(job)) && typeof window.selectCheckpoint === "function");
        for (const id of ["as_a", "draw_result"]) app.byId("sdtrain_merge_" + id).classList.toggle("sdtrain-hidden", !resultFile(job));
        part("label").textContent = `${TITLES[job.kind]} ${job.label}`;
        part("status").textContent = page.dataset.offline ? "the server does not answer; trying again" : statusOf(job);
        part("rate").textContent = rateOf(job);
        const percent = Math.round(fraction(job) * 1000) / 10;
        part("bar").style.width = percent + "%";
        part("bar").parentElement.setAttribute("aria-valuenow", percent);
        list(part("notices"), job.notices.slice(-8));
        showEnd(job);
        if (job.kind === PICTURES) showPictures(job);
    });

    function showMistakes(own) {
        for (const old of own.querySelectorAll(".sdtrain-mistake")) old.remove();
        for (const old of own.querySelectorAll(".sdtrain-wrong")) old.classList.remove("sdtrain-wrong");
        for (const said of own.querySelectorAll("[data-control]")) {
            const control = said.dataset.control && app.byId(said.dataset.control);
            if (!control) continue;
            const words = [...said.childNodes].filter((node) => !node.className).map((node) => node.textContent).join("");
            control.classList.add("sdtrain-wrong");
            control.appendChild(element("div", words, "sdtrain-mistake"));
            const folded = control.closest(".gradio-accordion, .block:has(> .label-wrap)");
            const opener = folded && folded.querySelector(":scope > .label-wrap:not(.open)");
            if (opener) opener.click();
        }
    }

    app.onReady(() => {
        const own = app.byId("sdtrain_merge");
        for (const id of ["plan", "notes", "pictures_message", "again_message", "difference"]) {
            const target = app.byId("sdtrain_merge_" + id);
            new MutationObserver(() => showMistakes(own)).observe(target, {childList: true, subtree: true});
        }
        own.addEventListener("click", (event) => {
            const button = event.target.closest("button"), id = button ? button.id.replace("sdtrain_merge_", "") : "";
            if (["start", "compare", "draw", "draw_result"].includes(id)) {
                expecting = true;
                app.pollEagerly();
            }
            if (id === "draw_result" || id === "draw") openSeeing();
            if (id === "stop" && app.job) {
                pressed = app.jobId();
                part("status").textContent = statusOf(app.job);
                app.pollSoon(300);
            } else if (id === "close" || id === "as_a" || id === "draw_result") {
                sessionStorage.setItem(DISMISSED, app.jobId());
                own.dataset.state = "idle";
                own.dataset.result = "false";
            } else if (id === "use") {
                window.selectCheckpoint(resultFile(app.job).split(/[\\/]/).pop());
            }
        });
    });

    function openSeeing() {
        const opener = app.byId("sdtrain_merge_seeing").querySelector(".label-wrap:not(.open)");
        if (opener) opener.click();
    }
})();
