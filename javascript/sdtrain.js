// SD Train's page: finds itself in the WebUI or alone, asks the server what is going on, tells the other scripts.
(function () {
    "use strict";

    const BUSY_MS = 700; // unless the WebUI's settings say otherwise
    const ELSEWHERE_MS = 5000; // a run goes on while another tab of the WebUI is looked at
    const IDLE_MS = 4000;
    const OFFLINE_MS = [5000, 15000, 30000, 60000];
    const EAGER_MS = 20000;
    const KEYS_SETTLE_MS = 600;
    const MOST_POINTS = 6000; // of a run that goes on for days
    const RESTARTED = "the program was restarted while this ran: Runs has what was saved";

    const app = window.sdtrain = window.sdtrain || {};
    app.views = []; // functions of (page element, job), called after every answer
    app.job = null;
    app.queue = {waiting: 0, next: "", held: ""}; // what comes after the job
    app.asked = "{}"; // the wish that a hidden button tells, see sdtrain_ask.js

    app.root = () => (typeof window.gradioApp === "function" ? window.gradioApp() : document);
    app.byId = (id) => app.root().querySelector("#" + CSS.escape(id));
    app.page = () => app.byId("sdtrain_train");
    app.element = (tag, text, className) => {
        const made = document.createElement(tag);
        if (text) made.textContent = text;
        if (className) made.className = className;
        return made;
    };
    app.duration = (seconds) => {
        if (seconds < 90) return Math.max(1, Math.round(seconds)) + " s";
        return seconds < 5400 ? Math.round(seconds / 60) + " min" : (seconds / 3600).toFixed(1) + " h";
    };
    app.jobId = () => (app.job ? app.job.id : "");
    app.press = (id) => {
        const button = app.byId(id);
        if (button) button.click();
        return Boolean(button);
    };

    app.ENCODING = "encoding pictures"; // most of it is done behind the first step

    // A job's events folded into what the page shows.
    function emptyJob(view) {
        return {
            id: view.id, kind: view.kind, label: view.label, state: view.state, asked: view.asked, last: 0,
            points: [], validations: [], previews: new Map(), notices: [], saved: [], problems: [],
            phase: null, step: 0, total: 0, left: null, rate: null, runDir: "", end: null, stepTimes: [],
            every: 1, taken: 0, // of the points
        };
    }

    // Every point of a short run, every second, fourth, ... of a long one, and always the last.
    function addPoint(job, point) {
        if (job.taken % job.every !== 1 % job.every) job.points.pop();
        job.points.push(point);
        job.taken += 1;
        if (job.points.length <= MOST_POINTS) return;
        job.points = job.points.filter((_, index) => index % 2 === 0);
        job.every *= 2;
    }

    const fold = {
        started: (job, event) => {
            job.step = event.step;
            job.total = event.total;
            job.runDir = event.run_dir || "";
            job.stepTimes = [];
            job.points = job.points.filter((point) => point[0] <= event.step); // a crash may have lost the last ones
            app.series.goBack(job.validations, event.step);
        },
        phase: (job, event) => {
            job.phase = event;
            if (event.name === app.ENCODING) job.stepTimes = [];
        },
        step: (job, event) => {
            job.phase = null;
            job.step = event.step;
            job.total = event.total;
            job.left = event.seconds_left;
            addPoint(job, [event.step, event.loss, event.smoothed]);
            job.stepTimes.push([event.time, event.step]);
            if (job.stepTimes.length > 20) job.stepTimes.shift();
            const [time, step] = job.stepTimes[0];
            if (event.time > time) job.rate = (event.step - step) / (event.time - time);
        },
        preview: (job, event) => {
            if (!job.previews.has(event.step)) job.previews.set(event.step, new Map());
            job.previews.get(event.step).set(event.index, event.infotext);
        },
        validation: (job, event) => { app.series.take(job.validations, event); },
        saved: (job, event) => { if (event.kind !== "picture") job.saved.push(event); },
        notice: (job, event) => { job.notices.push((event.where ? event.where + ": " : "") + event.text); },
        finished: (job, event) => { job.end = event; },
        stopped: (job, event) => { job.end = event; },
        failed: (job, event) => { job.problems = event.problems; },
    };

    function take(view) {
        if (!view && busy()) Object.assign(app.job, {state: "failed", problems: [RESTARTED], saved: []});
        if (!view) return;
        if (!app.job || app.job.id !== view.id) app.job = emptyJob(view);
        const job = app.job;
        Object.assign(job, {state: view.state, asked: view.asked, label: view.label, last: view.last});
        for (const event of view.events) if (fold[event.type]) fold[event.type](job, event);
    }

    let timer = null, eagerUntil = 0, failures = 0, asked = false, asking = false;

    const busy = () => Boolean(app.job && (app.job.state === "waiting" || app.job.state === "running"));
    // any of the sub-tabs, each of which may have started the job
    const inSight = (page) => !document.hidden && (page.closest("#sdtrain_tabs") || page).offsetParent !== null;

    async function ask() {
        const job = app.job;
        const query = job ? "?id=" + encodeURIComponent(job.id) + "&after=" + job.last : "";
        const answer = await fetch(new URL("sdtrain/v1/job" + query, document.baseURI), {credentials: "same-origin"});
        if (!answer.ok) throw new Error("the server answered " + answer.status);
        return answer.json();
    }

    // A WebUI that is just starting does not survive a request that comes before it is ready. So nothing is asked
    // while nobody looks, and a server that does not answer is left in peace for longer and longer.
    function pause(page) {
        if (failures) return OFFLINE_MS[Math.min(failures, OFFLINE_MS.length) - 1];
        const often = 1000 * (window.opts && window.opts.sdtrain_poll_seconds) || BUSY_MS;
        if (!inSight(page)) return busy() ? ELSEWHERE_MS : often;
        return busy() || Date.now() < eagerUntil ? often : IDLE_MS;
    }

    async function poll() {
        clearTimeout(timer);
        const page = app.page();
        if (!page) return; // the WebUI is reloading and has emptied the page
        if (asking) { // two answers at once would tell the same events twice
            app.pollSoon(BUSY_MS);
            return;
        }
        if (!document.hidden && (!asked || busy() || inSight(page))) await refresh(page);
        clearTimeout(timer);
        timer = setTimeout(poll, pause(page));
    }

    async function refresh(page) {
        asked = asking = true;
        try {
            const answer = await ask();
            app.queue = answer.queue || app.queue;
            take(answer.job);
            failures = 0;
            delete page.dataset.offline;
        } catch (error) {
            failures += 1;
            page.dataset.offline = "true";
        }
        asking = false;
        if (app.page() !== page) return; // the WebUI has emptied the page meanwhile
        for (const view of app.views) {
            try {
                view(page, app.job);
            } catch (error) { // the page goes on asking, and the other views go on showing
                console.error("SD Train:", error);
            }
        }
    }

    app.pollSoon = (delay) => {
        clearTimeout(timer);
        timer = setTimeout(poll, delay);
    };

    // Something was started: its first sign may take a moment.
    app.pollEagerly = () => {
        eagerUntil = Date.now() + EAGER_MS;
        app.pollSoon(300);
    };

    // Text settles when typing pauses, so that the plan follows without a click elsewhere.
    function settleWhileTyping(page) {
        let settling = null;
        page.addEventListener("input", (event) => {
            const box = event.target;
            if (!box.matches("textarea, input[type=text], input[type=number], input:not([type])")) return;
            if (!box.closest("#sdtrain_train_form") || box.closest(".sdtrain-search")) return;
            clearTimeout(settling);
            settling = setTimeout(() => box.dispatchEvent(new Event("blur")), KEYS_SETTLE_MS);
        });
        // who has left the box has been heard: a second answer would sweep away what was said since
        page.addEventListener("focusout", () => clearTimeout(settling));
    }

    // Calls `ready(page)` once the page is there; the scripts after this one may come before or after it.
    const waiting = [];
    app.onReady = (ready) => {
        const page = app.page();
        if (page && page.dataset.booted) ready(page);
        else waiting.push(ready);
    };

    function boot() {
        const page = app.page();
        const scripts = app.addPictureActs; // of sdtrain_send.js, which is loaded last: a run that is on needs all of them
        if (!page || !scripts || !app.byId("sdtrain_train_load") || !app.byId("sdtrain_run")) {
            setTimeout(boot, 150);
            return;
        }
        if (page.dataset.booted) return;
        page.dataset.booted = "true";
        settleWhileTyping(page);
        for (const ready of waiting.splice(0)) ready(page);
        app.press("sdtrain_train_load");
        poll();
    }

    document.addEventListener("visibilitychange", () => { if (!document.hidden && app.page()) app.pollSoon(0); });
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", boot);
    else boot();
})();
