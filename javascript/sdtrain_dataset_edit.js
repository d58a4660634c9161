// The Dataset sub-tab: captions and pictures changed. Nothing is written before it was shown, and all can be taken back.
(function () {
    "use strict";

    const app = window.sdtrain = window.sdtrain || {};
    const ASK_MS = 300, FIELDS = ["find", "replace", "remove", "first", "last", "tag", "out"], FLAGS = ["word", "regex"];
    const CAPTIONS = ["find", "replace", "remove", "first", "last", ...FLAGS];
    let working = "", asking = null, shown = "", shownFolder = "", changed = "", answered = "";

    const view = () => app.byId("sdtrain_preparing_view");
    const part = (name) => view().querySelector(`[data-part="${name}"]`);
    const button = (act) => view().querySelector(`[data-act="${act}"]`);
    const folder = () => app.dataset.part("folder").value;
    const captionsWish = () => JSON.stringify([folder(), ...CAPTIONS.map((name) => value(name))]);

    function value(name) {
        return FLAGS.includes(name) ? part(name).checked : part(name).value;
    }

    function send(act) {
        if (act !== "stop") clear();
        const place = {undo: changed, write: shownFolder}[act];
        const wish = {act, folder: place || folder(), id: working};
        for (const name of [...FIELDS, ...FLAGS]) wish[name] = value(name);
        if (act === "show") shown = captionsWish();
        app.wishes.preparing.send(wish);
    }

    function clear() {
        for (const name of ["problems", "notices", "tags", "changes"]) part(name).replaceChildren();
        part("said").textContent = "";
        button("write").disabled = true;
    }

    async function ask(path) {
        const answer = await fetch(new URL("sdtrain/v1/" + path, document.baseURI), {credentials: "same-origin"});
        if (!answer.ok) throw new Error("the server answered " + answer.status);
        return answer.json();
    }

    async function follow() {
        clearTimeout(asking);
        const wanted = working;
        let work = null;
        try {
            work = await ask("preparing/" + encodeURIComponent(wanted));
        } catch (error) { // the server is away; the Train sub-tab tells
            asking = setTimeout(follow, 10 * ASK_MS);
            return;
        }
        if (wanted !== working) return;
        const busy = work.state === "working", phase = work.phase;
        part("progress").hidden = !busy;
        for (const act of ["tags", "show", "resize", "move", "undo"]) button(act).disabled = busy;
        if (busy) {
            button("write").disabled = true;
            part("phase").textContent = phase ? `${phase.name}: ${phase.done} of ${phase.total}` : "beginning";
            if (phase && phase.total) part("bar").value = phase.done / phase.total;
            else part("bar").removeAttribute("value");
            asking = setTimeout(follow, ASK_MS);
            return;
        }
        ended(work);
    }

    function ended(work) {
        const made = app.element, counted = app.dataset.counted, result = work.result;
        part("problems").replaceChildren(...(work.problems || []).map((problem) => {
            const line = made("li");
            line.append(made("b", problem.what), problem.fix ? `; ${problem.fix}` : "", made("span", problem.where, "sdtrain-path"));
            return line;
        }));
        part("notices").replaceChildren(...(work.notices || []).map((text) => made("li", text)));
        if (["write", "resize", "move"].includes(work.act)) changed = work.folder; // also when it did not come to its end
        if (work.state === "stopped") part("said").textContent = "Stopped. What was done until then can be taken back.";
        if (work.state === "gone") part("said").textContent = "The program was started again meanwhile.";
        if (!result) return;
        if (work.act === "tags") showTags(result);
        if (work.act === "show") showChanges(result);
        const said = {
            write: () => `${counted(result.captions, "caption")} written.`,
            resize: () => `${counted(result.pictures, "picture")} in ${result.folder}`
                + (result.left_out ? `; ${result.left_out} left out.` : "."),
            move: () => `${counted(result.pictures, "picture")} moved to ${result.folder}.`,
            undo: () => `${counted(result.files, "file")} as before.`,
        }[work.act];
        if (!said) return;
        part("said").textContent = said();
        if (work.act === "undo") changed = "";
        app.dataset.again();
    }

    function showTags(result) {
        const made = app.element;
        part("said").textContent = `${app.dataset.counted(result.pictures, "picture")}, `
            + `${app.dataset.counted(result.captions, "caption")}${result.empty ? `, ${result.empty} of them empty` : ""}`
            + (result.more ? `; the ${result.tags.length} most frequent tags` : "");
        part("tags").replaceChildren(...result.tags.map(([tag, count]) => {
            const mark = made("button", "", "sdd-mark sde-tag");
            mark.type = "button";
            mark.title = "Put it into Find and Tag";
            mark.append(tag, made("span", String(count), "sde-count"));
            mark.addEventListener("click", () => {
                part("find").value = part("tag").value = tag;
                part("find").focus();
            });
            return mark;
        }));
    }

    function showChanges(result) {
        const made = app.element;
        part("said").textContent = !result.captions ? "No caption would change."
            : `${app.dataset.counted(result.captions, "caption")} would change`
              + (result.captions > result.changes.length ? `; the first ${result.changes.length}:` : ":");
        part("changes").replaceChildren(...result.changes.map((change) => {
            const row = made("div", "", "sde-change");
            row.append(made("span", change.file, "sdtrain-path"), made("del", change.before || "(empty)"),
                made("ins", change.after || "(empty)"));
            return row;
        }));
        shownFolder = result.folder;
        button("write").disabled = !result.captions || shown !== captionsWish();
    }

    app.onReady(() => {
        view().addEventListener("click", (event) => {
            const wanted = event.target.closest("[data-act]");
            if (wanted) send(wanted.dataset.act);
        });
        const changes = () => { if (shown !== captionsWish()) button("write").disabled = true; };
        view().addEventListener("input", changes);
        app.dataset.part("folder").addEventListener("input", () => {
            changed = "";
            changes();
        });
        new MutationObserver(() => {
            const answer = app.byId("sdtrain_preparing_message").querySelector("[data-answer]");
            if (!answer || answer.dataset.answer === answered) return; // Gradio touches the place while it waits, too
            answered = answer.dataset.answer;
            const found = answer.querySelector("[data-work]");
            if (found) {
                working = found.dataset.work;
                follow();
                return;
            }
            const mistakes = answer.querySelectorAll(".sdtrain-problems > li");
            part("problems").replaceChildren(...[...mistakes].map((line) => line.cloneNode(true)));
        }).observe(app.byId("sdtrain_preparing_message"), {childList: true, subtree: true});
        ask("preparing").then((work) => { // a page that is opened later finds what is under way
            if (work.state !== "working") return;
            view().open = true;
            working = work.id;
            follow();
        }, () => {});
    });
})();
