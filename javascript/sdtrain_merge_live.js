// Live merges in the WebUI: what the loaded model shows, on the Merge sub-tab and beside the WebUI's own checkpoint box.
(function () {
    "use strict";

    const app = window.sdtrain;
    const BUSY_MS = 400, OPEN_MS = 2500, ELSEWHERE_MS = 6000, EAGER_MS = 4000;
    const BADGE = "sdtrain_live_badge";
    let timer = null, eagerUntil = 0, state = null, asking = false;

    const bar = () => app.byId("sdtrain_merge_live_bar");
    const part = (name) => bar().querySelector(`[data-part="${name}"]`);
    const busy = () => Boolean(state && (state.state === "waiting" || state.state === "working"));
    const seen = () => !document.hidden && bar() && bar().offsetParent !== null;

    function words() {
        if (!state) return "";
        if (state.state === "waiting") return "waiting for the machine";
        if (state.state === "working") return state.total > 1 ? `merging, ${state.done} of ${state.total} layers` : "merging";
        return "";
    }

    function show() {
        const own = bar();
        own.dataset.state = state.state;
        own.dataset.on = String(state.on);
        part("what").textContent = state.on ? `${state.checkpoint}: merged, not saved` : "";
        part("hash").textContent = state.on ? state.hash : "";
        part("working").textContent = words();
        const lines = state.problems.map((problem) => problem.what + (problem.fix ? "; " + problem.fix : ""));
        if (part("problems").dataset.lines !== String(lines)) {
            part("problems").dataset.lines = String(lines);
            part("problems").replaceChildren(...lines.map((line) => {
                const item = document.createElement("li");
                item.textContent = line;
                return item;
            }));
        }
        for (const name of ["revert", "save", "fill"]) {
            app.byId("sdtrain_merge_live_" + name).classList.toggle("sdtrain-hidden", !state.on);
        }
        uncheck();
        showBadge();
    }

    // The box is a wish of this page: when the model has its own weights again, the wish has ended.
    function uncheck() {
        const box = app.byId("sdtrain_merge_live").querySelector("input[type=checkbox]");
        if (box && box.checked && state.state === "off" && !state.problems.length && Date.now() > eagerUntil) box.click();
        const fill = app.byId("sdtrain_merge_live_fill");
        if (box && box.checked) fill.classList.add("sdtrain-hidden");
    }

    function showBadge() {
        const row = app.byId("quicksettings"), foot = app.byId("sd_checkpoint_hash");
        let badge = app.byId(BADGE);
        if (!badge && row && state.on) {
            badge = document.createElement("button");
            badge.id = BADGE;
            badge.type = "button";
            badge.className = "sdm-badge";
            badge.addEventListener("click", visit);
            row.append(badge);
        }
        if (!badge) return;
        badge.hidden = !state.on;
        badge.textContent = "merged, not saved";
        badge.title = `SD Train has merged other models into ${state.checkpoint}, in memory only (${state.hash}). Click to see.`;
        if (!foot) return;
        if (state.on) foot.textContent = state.hash;
        else if (window.opts && window.opts.sd_checkpoint_hash && badge.dataset.hash) {
            foot.textContent = window.opts.sd_checkpoint_hash.substring(0, 10);
        }
        badge.dataset.hash = state.on ? state.hash : "";
    }

    function visit() {
        const press = (within, name) => {
            const found = [...app.root().querySelectorAll(within)].find((button) => button.textContent.trim() === name);
            if (found) found.click();
        };
        press("#tabs > .tab-nav button", "SD Train");
        press("#sdtrain_tabs > .tab-nav button", "Merge");
    }

    function pause() {
        if (busy() || Date.now() < eagerUntil) return BUSY_MS;
        return seen() ? OPEN_MS : ELSEWHERE_MS;
    }

    async function poll(always) {
        clearTimeout(timer);
        if (!bar()) return; // the WebUI is reloading and has emptied the page
        const needed = always || busy() || Date.now() < eagerUntil || seen() || (state && state.on && !document.hidden);
        if (needed && !asking) await refresh();
        clearTimeout(timer);
        timer = setTimeout(poll, pause());
    }

    async function refresh() {
        asking = true;
        try {
            const answer = await fetch(new URL("sdtrain/v1/live", document.baseURI), {credentials: "same-origin"});
            if (answer.ok) state = await answer.json();
            if (answer.ok && bar()) show();
        } catch (error) {
            eagerUntil = 0; // the server does not answer; what was known stays shown
        }
        asking = false;
    }

    app.liveState = () => state;
    app.pollLive = () => {
        eagerUntil = Date.now() + EAGER_MS;
        clearTimeout(timer);
        timer = setTimeout(poll, 150);
    };

    app.onReady(() => {
        const own = app.byId("sdtrain_merge");
        if (!own || !bar()) return; // no loaded model to change
        const moved = (event) => {
            const box = app.byId("sdtrain_merge_live").querySelector("input[type=checkbox]");
            if (box.checked || event.target === box || event.target.closest(".sdm-live")) app.pollLive();
        };
        for (const kind of ["click", "input", "change", "pointerup"]) own.addEventListener(kind, moved);
        document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(true); });
        poll(true);
    });
})();
