// The running job on the page: status, bar, previews, what to do with the result.
(function () {
    "use strict";

    const app = window.sdtrain;
    const DISMISSED = "sdtrain.dismissed";
    const STOPS = {
        save: "stopping after this step, then saving", go_on: "saving after this step", now: "stopping now",
    };
    const ENDED = {finished: "done", stopped: "stopped", failed: "failed"};
    let pressed = {job: "", how: ""}, previewStep = null, follows = true, last = {id: "", state: ""};

    const part = (name) => app.byId("sdtrain_run").querySelector(`[data-part="${name}"]`);

    const {element, duration} = app;

    function amount(phase) {
        if (phase.total <= 1) return "";
        const said = phase.name.endsWith(phase.unit); // encoding pictures
        return `${phase.done}/${phase.total}${said ? "" : " " + phase.unit}`;
    }

    function statusOf(job) {
        if (ENDED[job.state]) {
            const at = job.total ? ` at step ${job.step} of ${job.total}` : "";
            const kept = job.state === "stopped" ? (job.end && job.end.saved ? ", saved" : ", not saved") : "";
            return ENDED[job.state] + (job.state === "finished" ? "" : at) + kept;
        }
        const wish = STOPS[(pressed.job === job.id && pressed.how) || job.asked];
        if (job.state === "waiting") return wish ? "stops as soon as its turn comes" : "waiting for the machine";
        const doing = job.phase && !(job.phase.total && job.phase.done >= job.phase.total && job.step)
            ? `${job.phase.name} ${amount(job.phase)}`
            : `step ${job.step} of ${job.total}`;
        return doing + (wish ? ` (${wish})` : "");
    }

    function fraction(job) {
        if (job.state === "finished") return 1;
        const phase = job.phase && job.phase.total ? job.phase : null;
        const preparing = phase && (!job.step || (phase.name === app.ENCODING && phase.done < phase.total));
        if (preparing) return phase.done / phase.total;
        return job.total ? job.step / job.total : 0;
    }

    function rateOf(job) {
        if (job.state !== "running" || !job.rate || job.phase) return "";
        const rate = job.rate >= 1 ? job.rate.toFixed(1) + " steps/s" : (1 / job.rate).toFixed(1) + " s/step";
        return rate + (job.left === null ? "" : `, ${duration(job.left)} left`);
    }

    function list(target, lines) {
        if (target.dataset.lines === String(lines)) return;
        target.dataset.lines = String(lines);
        target.replaceChildren(...lines.map((text) => element("li", text)));
    }

    function showResult(job) {
        const target = part("result"), problems = part("problems");
        const found = job.state === "failed" ? job.problems : [];
        if (problems.dataset.lines !== String(found)) {
            problems.dataset.lines = String(found);
            const lines = element("ul", "", "sdtrain-problems");
            for (const text of found) lines.appendChild(element("li", "")).appendChild(element("b", text));
            problems.replaceChildren(...(found.length ? [lines] : []));
        }
        const file = resultFile(job), beside = filesBeside(job, file);
        const key = [job.state, file, ...beside].join();
        if (target.dataset.key === key) return;
        target.dataset.key = key;
        target.replaceChildren();
        if (!file || !ENDED[job.state]) return;
        for (const [words, path] of [["The model: ", file], ...beside.map((one) => ["Beside it: ", one])]) {
            target.appendChild(element("div", words, "sdtrain-result")).appendChild(element("code", path));
        }
    }

    function resultFile(job) {
        const checkpoints = job.saved.filter((event) => ["checkpoint", "lora", "embedding"].includes(event.kind));
        return (job.end && job.end.result && job.end.result.checkpoint)
            || (checkpoints.length ? checkpoints[checkpoints.length - 1].file : "");
    }

    // Its further forms, and the embedding that was trained with it.
    function filesBeside(job, file) {
        const result = (job.end && job.end.result) || {};
        const files = [...(result.also || []).map((form) => form.file), result.embedding];
        return files.filter((one) => one && one !== file);
    }

    function showPreviews(job) {
        const steps = [...job.previews.keys()].sort((a, b) => a - b);
        part("previews").hidden = !steps.length;
        if (!steps.length) return;
        const slider = part("preview-slider");
        slider.max = steps.length - 1;
        if (follows || !job.previews.has(previewStep)) previewStep = steps[steps.length - 1];
        slider.value = steps.indexOf(previewStep);
        part("preview-step").textContent = previewStep;
        const shown = job.previews.get(previewStep), row = part("preview-row");
        const key = `${job.id}/${previewStep}/${shown.size}`;
        if (row.dataset.key === key) return;
        row.dataset.key = key;
        row.replaceChildren(...[...shown].map(([index, infotext]) => {
            const figure = element("figure"), image = figure.appendChild(element("img"));
            image.src = new URL(`sdtrain/v1/job/${job.id}/preview/${previewStep}/${index}`, document.baseURI);
            image.alt = image.title = infotext.split("\n")[0];
            figure.appendChild(element("figcaption", image.alt)).title = image.alt;
            app.addPictureActs(figure, infotext);
            return figure;
        }));
    }

    function pageState(job) {
        if (!job) return "idle";
        return ENDED[job.state] && sessionStorage.getItem(DISMISSED) === job.id ? "idle" : job.state;
    }

    function ended() {
        if (app.byId("refresh_sd_model_checkpoint")) app.press("refresh_sd_model_checkpoint");
        for (const part of ["txt2img", "img2img"]) {
            for (const kind of ["lora", "textual_inversion", "checkpoints"]) app.press(`${part}_${kind}_extra_refresh_internal`);
        }
        app.press("sdtrain_train_ended");
    }

    function queueWords(queue) {
        if (!queue.waiting) return "";
        const rest = queue.waiting > 1 ? ` and ${queue.waiting - 1} more` : "";
        return `${queue.held ? "Held in the queue" : "Then"}: ${queue.next}${rest}`;
    }

    // The form is in sight beside a running job, to set up what comes after it.
    app.leaveRun = () => {
        const page = app.page(), active = page.dataset.state === "running" || page.dataset.state === "waiting";
        if (active) page.dataset.another = "true";
        else if (app.job) sessionStorage.setItem(DISMISSED, app.jobId());
        if (!active) page.dataset.state = "idle";
    };

    app.views.push((page, current) => {
        const busy = Boolean(current && !ENDED[current.state]);
        page.dataset.busy = String(busy);
        if (!busy) page.dataset.another = "false";
        const queued = app.byId("sdtrain_train_queue");
        if (queued) queued.textContent = queueWords(app.queue);
        const job = current && current.kind === "train" ? current : null; // other sub-tabs show their own
        const state = pageState(job);
        page.dataset.state = state;
        if (!job) return;
        const another = last.id && last.id !== job.id && !ENDED[last.state]; // the one before ended unseen
        if (another || (ENDED[job.state] && last.id && (last.id !== job.id || last.state !== job.state))) ended();
        last = {id: job.id, state: job.state};
        page.dataset.resumable = String(job.state === "stopped" && Boolean(job.runDir && job.end && job.end.saved)
            || job.state === "failed" && job.saved.some((event) => event.kind === "state"));
        page.dataset.usable = String(
            typeof window.selectCheckpoint === "function" && job.saved.some((event) => event.kind === "checkpoint"));
        part("label").textContent = job.label;
        part("status").textContent = page.dataset.offline ? "the server does not answer; trying again" : statusOf(job);
        part("rate").textContent = rateOf(job);
        const percent = Math.round(fraction(job) * 1000) / 10;
        part("bar").style.width = percent + "%";
        part("bar").parentElement.setAttribute("aria-valuenow", percent);
        list(part("notices"), job.notices.slice(-8));
        showResult(job);
        showPreviews(job);
        app.drawPlot(part("plot"), job);
    });

    app.onReady((page) => {
        part("preview-slider").addEventListener("input", (event) => {
            const steps = [...app.job.previews.keys()].sort((a, b) => a - b);
            previewStep = steps[event.target.value];
            follows = +event.target.value === steps.length - 1;
            showPreviews(app.job);
        });
        page.addEventListener("click", (event) => {
            const button = event.target.closest("button");
            if (!button) return;
            const how = (button.id.match(/^sdtrain_train_stop_(\w+)$/) || [])[1];
            if (how && app.job) {
                pressed = {job: app.jobId(), how};
                part("status").textContent = statusOf(app.job);
                if (how === "go_on") setTimeout(() => { pressed = {job: "", how: ""}; }, 4000);
                app.pollSoon(300);
            } else if (["start", "resume", "enqueue"].includes(button.id.replace("sdtrain_train_", ""))) {
                app.pollEagerly();
            } else if (button.id === "sdtrain_train_another") {
                page.dataset.another = String(page.dataset.another !== "true");
            } else if (button.id === "sdtrain_train_again") {
                sessionStorage.setItem(DISMISSED, app.jobId());
                page.dataset.state = "idle";
            } else if (button.id === "sdtrain_train_use") {
                window.selectCheckpoint(resultFile(app.job).split(/[\\/]/).pop());
            }
        });
    });
})();
