// The Runs sub-tab: the queue, and the list of everything that was made. What one of them is stands in sdtrain_runs_detail.js.
(function () {
    "use strict";

    const app = window.sdtrain = window.sdtrain || {};
    const LOOK_MS = 3000;
    const runs = app.runs = {chosen: "", ticked: new Set(), entries: [], queue: null};
    let looked = 0, lastKey = "", looking = false;

    runs.view = () => app.byId("sdtrain_runs_view");
    runs.part = (name) => runs.view().querySelector(`[data-part="${name}"]`);
    const part = runs.part;

    const element = app.element;

    runs.button = (text, title, act, className) => {
        const made = element("button", text, "sdr-button " + (className || ""));
        made.type = "button";
        made.title = title;
        made.addEventListener("click", (event) => { event.stopPropagation(); act(); });
        return made;
    };

    runs.chip = (state) => {
        const words = {finished: "done"};
        const made = element("span", words[state] || state, "sdr-chip");
        made.dataset.state = state;
        return made;
    };

    runs.duration = (seconds) => {
        if (!Number.isFinite(seconds) || seconds <= 0) return "";
        if (seconds < 90) return Math.max(1, Math.round(seconds)) + " s";
        return seconds < 5400 ? Math.round(seconds / 60) + " min" : (seconds / 3600).toFixed(1) + " h";
    };

    runs.size = (bytes) => {
        const units = ["B", "KB", "MB", "GB", "TB"];
        let unit = 0;
        for (; bytes >= 1000 && unit < 4; unit += 1) bytes /= 1000;
        return (bytes >= 10 || !unit ? Math.round(bytes) : bytes.toFixed(1)) + " " + units[unit];
    };

    runs.ask = async (path) => {
        const answer = await fetch(new URL("sdtrain/v1/" + path, document.baseURI), {credentials: "same-origin"});
        if (!answer.ok) throw new Error("the server answered " + answer.status);
        return answer.json();
    };

    // The server says above the list what came of a wish.
    runs.send = app.wishes.runs.send;

    runs.lookSoon = () => { looked = 0; app.pollSoon(100); };

    const visible = () => Boolean(runs.view() && runs.view().offsetParent !== null && !document.hidden);

    async function look() {
        if (looking) return;
        looking = true;
        try {
            [runs.entries, runs.queue] = await Promise.all([runs.ask("view/history"), runs.ask("view/queue")]);
            looked = Date.now();
            showQueue();
            showList();
            if (runs.refreshDetail) await runs.refreshDetail();
        } catch (error) { // asked again in a moment; the Train sub-tab tells that the server is away
            looked = Date.now();
        }
        looking = false;
    }

    // the queue

    function taskRow(task, index, count) {
        const row = element("li"), acts = element("div", "", "sdr-acts");
        const name = element("span", task.label, "sdr-name");
        name.title = task.label;
        const expected = task.seconds ? "about " + runs.duration(task.seconds) : "";
        const wrong = task.problems.length > 0;
        const words = wrong ? task.problems.join("; ")
            : [task.about, task.state === "waiting" ? expected : runs.duration(task.ended - task.began)].filter(Boolean).join(", ");
        const about = element("span", `${task.kind === "merge" ? "merge" : "training"}${words ? ": " + words : ""}`, "sdr-about");
        about.title = words;
        about.classList.toggle("sdr-wrong", wrong);
        row.append(runs.chip(task.state), name, about, acts);
        if (task.state === "waiting") {
            const move = (text, by, title, off) => {
                const made = runs.button(text, title, () => runs.send({do: "move", id: task.id, by}));
                made.disabled = off;
                made.setAttribute("aria-label", `${title}: ${task.label}`);
                acts.append(made);
            };
            move("↑", -1, "Sooner", index === 0);
            move("↓", 1, "Later", index === count - 1);
            if (task.kind === "train") {
                acts.append(runs.button("Edit", "Take it out and put its settings into the Train form",
                    () => app.fillTrain({task: task.id})));
            }
        }
        if (task.run) acts.append(runs.button("Show", "Show this run below", () => runs.choose(task.run)));
        if (task.state !== "running") {
            acts.append(runs.button("✕", "Take it off this list", () => runs.send({do: "remove", id: task.id})));
        }
        return row;
    }

    function showQueue() {
        const queue = runs.queue, waiting = queue.waiting;
        const seconds = waiting.reduce((sum, task) => sum + (task.seconds || 0), 0);
        const known = waiting.length && waiting.every((task) => task.seconds);
        const counted = waiting.length === 1 ? "one waits" : `${waiting.length} wait`;
        part("queue-words").textContent = !waiting.length && !queue.running ? "empty: “Add to queue” on Train or Merge puts something here"
            : (waiting.length ? counted : "nothing waits") + (known ? `, about ${runs.duration(seconds)}` : "");
        const held = {"by you": "Held: nothing more is started.",
            "by a restart": "The program was restarted. What waited and what was cut off is here, and held until you go on."}[queue.held];
        part("queue-notice").textContent = [waiting.length ? held : "", queue.notice].filter(Boolean).join(" ");
        const shown = runs.view();
        shown.querySelector("[data-do=hold]").hidden = Boolean(queue.held) || !waiting.length;
        shown.querySelector("[data-do=go_on]").hidden = !queue.held || !waiting.length;
        shown.querySelector("[data-do=clear]").hidden = !queue.ended.length;
        const tasks = [...(queue.running ? [queue.running] : []), ...waiting, ...queue.ended];
        const key = JSON.stringify(tasks);
        if (part("queue").dataset.key === key) return; // a pressed button must not vanish under the pointer
        part("queue").dataset.key = key;
        part("queue").replaceChildren(...tasks.map((task) => taskRow(task, waiting.indexOf(task), waiting.length)));
    }

    // the list

    function when(seconds) {
        if (!seconds) return "";
        const then = new Date(seconds * 1000), now = new Date();
        const time = then.toLocaleTimeString([], {hour: "2-digit", minute: "2-digit"});
        if (then.toDateString() === now.toDateString()) return time;
        return then.toLocaleDateString([], {day: "numeric", month: "short", ...(then.getFullYear() === now.getFullYear() ? {} : {year: "numeric"})})
            + " " + time;
    }

    function fits(entry) {
        const kind = part("kind").value, words = part("search").value.toLowerCase().split(/\s+/).filter(Boolean);
        const said = `${entry.label} ${entry.id} ${entry.state === "finished" ? "done" : entry.state} ${entry.kind} ${entry.method || ""}`.toLowerCase();
        return (!kind || kind === entry.kind) && words.every((word) => said.includes(word));
    }

    function listRow(entry) {
        const row = element("tr"), tick = element("input"), name = element("button", entry.label);
        row.dataset.id = entry.id;
        row.setAttribute("aria-selected", String(entry.id === runs.chosen));
        tick.type = "checkbox";
        tick.checked = runs.ticked.has(entry.id);
        tick.setAttribute("aria-label", "Compare " + entry.label);
        tick.title = "Tick two or more to compare them";
        tick.addEventListener("click", (event) => event.stopPropagation());
        tick.addEventListener("change", () => {
            runs.ticked[tick.checked ? "add" : "delete"](entry.id);
            countTicked();
        });
        name.type = "button";
        name.title = entry.label;
        const cells = [tick, name, runs.chip(entry.state)];
        const isRun = entry.kind === "run";
        cells.push(isRun ? (entry.total ? `${entry.step} of ${entry.total}` : "") : entry.method);
        cells.push(isRun && entry.loss !== null ? entry.loss.toPrecision(3) : "");
        cells.push(when(entry.began), runs.duration(isRun ? entry.last - entry.began : entry.seconds));
        for (const [index, content] of cells.entries()) {
            const cell = row.appendChild(element("td", "", index === 1 ? "sdr-name" : ""));
            cell.append(content);
            if (index === 1 && !isRun) cell.append(element("small", "merge"));
        }
        row.addEventListener("click", () => runs.choose(entry.id));
        return row;
    }

    function countTicked() {
        const button = runs.view().querySelector("[data-do=compare]");
        button.disabled = runs.ticked.size < 2 || runs.ticked.size > 6;
        button.textContent = runs.ticked.size ? `Compare the ticked (${runs.ticked.size})` : "Compare the ticked";
    }

    function showList() {
        const shown = runs.entries.filter(fits);
        const known = new Set(runs.entries.map((entry) => entry.id));
        for (const id of runs.ticked) if (!known.has(id)) runs.ticked.delete(id);
        part("count").textContent = shown.length === runs.entries.length ? `${shown.length} in all` : `${shown.length} of ${runs.entries.length}`;
        part("empty").hidden = runs.entries.length > 0;
        const key = JSON.stringify([shown, runs.chosen, [...runs.ticked]]);
        if (part("rows").dataset.key !== key) {
            part("rows").dataset.key = key;
            part("rows").replaceChildren(...shown.map(listRow));
        }
        countTicked();
    }

    runs.choose = (id) => {
        runs.chosen = id;
        showList();
        if (runs.showDetail) runs.showDetail([id]);
    };

    // the page

    app.views.push((page, job) => {
        if (!visible()) return;
        const key = job ? job.id + job.state : "";
        if (key !== lastKey || Date.now() - looked > LOOK_MS) look();
        lastKey = key;
    });

    // The run or merge behind a picture is shown; what stands in no list goes into its form.
    async function showOrigin(file) {
        runs.send({do: "origin", infotext: await app.infotextOf(file) || "this picture holds no infotext"});
    }

    function followAnswer() {
        const found = app.byId("sdtrain_runs_message").querySelector("[data-choose], [data-merge]");
        if (!found) return;
        if (found.dataset.choose) runs.choose(found.dataset.choose);
        else if (found.dataset.merge) app.fillMerge({out: found.dataset.merge});
    }

    app.onReady(() => {
        const view = runs.view();
        for (const type of ["dragover", "drop"]) {
            part("origin").addEventListener(type, (event) => {
                event.preventDefault();
                if (type === "drop" && event.dataTransfer.files.length) showOrigin(event.dataTransfer.files[0]);
            });
        }
        part("origin-file").addEventListener("change", (event) => {
            if (event.target.files.length) showOrigin(event.target.files[0]);
            event.target.value = "";
        });
        for (const name of ["search", "kind"]) part(name).addEventListener("input", showList);
        view.addEventListener("click", (event) => {
            const wanted = event.target.closest("[data-do]");
            if (!wanted) return;
            if (wanted.dataset.do === "compare") runs.showDetail([...runs.ticked]);
            else runs.send({do: wanted.dataset.do});
        });
        // the answer to a wish has come
        new MutationObserver(() => { runs.answered(); runs.lookSoon(); followAnswer(); }).observe(app.byId("sdtrain_runs_message"), {childList: true, subtree: true});
        new IntersectionObserver((seen) => { if (seen.some((one) => one.isIntersecting)) look(); }).observe(view);
    });
})();
