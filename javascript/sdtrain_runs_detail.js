// One run or merge in full, or several side by side: loss, previews by step, settings, files, what to do with it.
(function () {
    "use strict";

    const app = window.sdtrain = window.sdtrain || {};
    const runs = app.runs, element = app.element;
    const COLOURS = ["#3b82f6", "#f97316", "#22c55e", "#a855f7", "#ef4444", "#14b8a6"];
    const MOST_PICTURES = 60;
    let shown = [], details = [], step = null, follows = true, together = true, drawn = "", leaving = false;

    const place = () => runs.part("detail");

    async function load(ids) {
        const found = await Promise.all(ids.map((id) => runs.ask("view/history/" + encodeURIComponent(id)).catch(() => null)));
        return found.filter(Boolean);
    }

    runs.showDetail = async (ids) => {
        shown = ids;
        [step, follows, drawn] = [null, true, ""];
        await runs.refreshDetail();
        if (!place().hidden) place().scrollIntoView({block: "nearest", behavior: "smooth"});
    };

    // Pictures that are not loaded yet must not be asked for while their files are deleted.
    function leave(wish) {
        leaving = true;
        for (const box of place().querySelectorAll(".sdr-previews")) box.remove();
        runs.send(wish);
    }

    // The answer to a wish is there: what is left is drawn again.
    runs.answered = () => { [leaving, drawn] = [false, ""]; };

    // What is asked for again while it runs; the rest stands still.
    runs.refreshDetail = async () => {
        if (leaving) return;
        const asked = shown;
        const there = runs.entries.filter((entry) => asked.includes(entry.id)); // what was deleted is not asked for
        const state = JSON.stringify(there);
        if (state === drawn) return;
        const found = await load(asked.filter((id) => there.some((entry) => entry.id === id)));
        if (asked !== shown || leaving) return; // another was chosen meanwhile
        details = found;
        drawn = state;
        place().hidden = !details.length;
        if (!details.length) return;
        const open = [...place().querySelectorAll("details[open]")].map((one) => one.dataset.name);
        const typed = place().querySelector("input[type=text]"), typing = typed && typed === document.activeElement;
        place().replaceChildren(...(details.length > 1 ? await several() : one(details[0])));
        for (const name of open) {
            const again = place().querySelector(`details[data-name="${name}"]`);
            if (again) again.open = true;
        }
        if (typed) goOnTyping(typed, place().querySelector("input[type=text]"), typing);
    };

    // Who is typing into a box goes on in the one that takes its place.
    function goOnTyping(old, box, typing) {
        if (!box) return;
        box.value = old.value;
        if (!typing) return;
        box.focus({preventScroll: true});
        box.setSelectionRange(old.selectionStart, old.selectionEnd);
    }

    // one of them

    function head(detail) {
        const line = element("div", "", "sdr-head");
        const facts = detail.kind === "merge"
            ? [detail.method, runs.size(detail.bytes), runs.duration(detail.seconds)]
            : [detail.total ? `step ${detail.step} of ${detail.total}` : "", runs.duration(detail.seconds), runs.size(detail.bytes) + " on disk"];
        line.append(element("span", detail.label, "sdr-title"), runs.chip(detail.state),
            element("span", facts.filter(Boolean).join(" · "), "sdtrain-note"));
        return line;
    }

    function pathLine(path) {
        const line = element("div", "", "sdr-head");
        line.append(element("span", path, "sdr-path"), runs.button("Copy", "Copy this path", () => app.copy(path)));
        return line;
    }

    function acts(detail) {
        const line = element("div", "", "sdr-head sdr-doing");
        if (detail.kind === "merge") {
            line.append(runs.button("Merge again, with changes", "Put its models and weights into the Merge form",
                () => app.fillMerge({out: detail.out, sha256: detail.sha256}), "sdr-primary"));
            return line;
        }
        if (detail.resumable && detail.state !== "running") {
            const until = element("input");
            until.type = "text";
            until.size = 12;
            until.placeholder = detail.total ? String(detail.total) : "as it was";
            until.title = "A new length for the whole run, for instance 1200 or 30 epochs; empty leaves it";
            until.setAttribute("aria-label", "Until");
            until.id = "sdtrain_runs_length";
            const go = runs.button("Go on until", "Go on exactly where its state was saved; waits in the queue while the machine is busy",
                () => { runs.send({do: "resume", run: detail.id, length: until.value}); app.pollEagerly(); }, "sdr-primary");
            go.id = "sdtrain_runs_resume";
            line.append(go, until);
        }
        line.append(runs.button("Again, with changes", "Put its settings into the Train form", () => app.fillTrain({run: detail.id})));
        if (detail.state !== "running") {
            line.append(element("span", "", "sdr-space"),
                runs.button("Delete…", "Choose what of it to delete", () => confirmDelete(detail), "sdr-danger"));
        }
        return line;
    }

    function confirmDelete(detail) {
        const old = place().querySelector(".sdr-confirm");
        if (old) { old.remove(); return; }
        const box = element("div", "", "sdr-confirm"), line = element("div", "", "sdr-head");
        const files = detail.files.filter((file) => file.there);
        box.append(element("div", `Delete what of ${detail.label}? There is no way back.`));
        const act = (text, what, title) => line.append(runs.button(text, title, () => leave({do: "delete", run: detail.id, what}), "sdr-danger"));
        if (detail.state_bytes) act(`Only its saved state (${runs.size(detail.state_bytes)})`, "state", "It stays in the list and cannot go on any more");
        act("The run, but not its models", "run", "Settings, log, previews and state; models that it wrote stay");
        if (files.length) {
            const sum = files.reduce((total, file) => total + file.bytes, 0);
            act(`The run and its ${files.length === 1 ? "model" : files.length + " models"} (${runs.size(sum)})`, "files", files.map((file) => file.file).join(", "));
        }
        line.append(runs.button("Keep it", "Delete nothing", () => box.remove()));
        box.append(line);
        place().querySelector(".sdr-doing").after(box);
    }

    function folded(name, title, content, open) {
        const box = element("details");
        box.dataset.name = name;
        box.open = Boolean(open);
        box.append(element("summary", title), content);
        return box;
    }

    function lines(texts, className) {
        const list = element("ul", "", className);
        for (const text of texts) list.append(element("li", text));
        return list;
    }

    function settingsTable(settings) {
        const table = element("table", "", "sdr-settings");
        for (const [path, value] of Object.entries(settings)) {
            const row = element("tr");
            row.append(element("th", path), element("td", value));
            table.append(row);
        }
        return table;
    }

    function filesTable(detail) {
        const table = element("table", "", "sdr-settings");
        for (const file of detail.files) {
            const row = element("tr"), name = element("th", file.file), acts = element("td");
            name.append(element("small", file.place));
            const facts = file.there ? `step ${file.step} · ${runs.size(file.bytes)} · [${file.sha256.slice(0, 10)}]` : `step ${file.step} · no longer there`;
            if (file.there && detail.state !== "running") {
                let sure = false;
                const gone = runs.button("Delete", "Delete this file and what belongs to it", () => {
                    if (sure) runs.send({do: "delete_file", run: detail.id, file: file.file});
                    [sure, gone.textContent] = [true, "Really delete?"];
                }, "sdr-danger");
                acts.append(gone);
            }
            row.append(name, element("td", facts), acts);
            table.append(row);
        }
        return table;
    }

    function one(detail) {
        if (detail.kind === "merge") {
            return [head(detail), pathLine(detail.out), acts(detail), folded("settings", "What was merged, and how", settingsTable(detail.settings), true)];
        }
        const parts = [head(detail), pathLine(detail.path)];
        if (detail.problems.length) parts.push(lines(detail.problems, "sdtrain-problems"));
        parts.push(acts(detail));
        const columns = element("div", "", "sdr-columns");
        columns.append(plots(), previews());
        parts.push(columns);
        if (detail.files.length) parts.push(folded("files", detail.files.length === 1 ? "One model was written" : `${detail.files.length} models were written`, filesTable(detail), true));
        parts.push(folded("settings", `Settings (${Object.keys(detail.settings).length})`, settingsTable(detail.settings)));
        if (detail.notices.length) parts.push(folded("notices", `Notices (${detail.notices.length})`, lines(detail.notices, "sdtrain-notices")));
        return parts;
    }

    // loss

    const colour = (index) => COLOURS[index % COLOURS.length];
    const trained = () => details.filter((detail) => detail.kind === "run");

    function plots() {
        const box = element("div"), holder = element("div", "", "sdr-plots");
        const found = trained().filter((detail) => detail.points.length);
        if (!found.length) {
            box.append(element("p", "No step was taken yet.", "sdtrain-note"));
            return box;
        }
        holder.dataset.together = String(together || found.length === 1);
        for (const group of together ? [found] : found.map((detail) => [detail])) {
            const frame = element("div", "", "sdtrain-plot-box"), caption = element("div", "", "sdtrain-caption");
            const reading = element("span");
            reading.dataset.part = "reading";
            caption.append(found.length > 1 && !together ? group[0].label : "Loss, smoothed", reading);
            const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
            svg.setAttribute("viewBox", "0 0 640 200");
            svg.setAttribute("class", "sdtrain-plot");
            svg.setAttribute("role", "img");
            svg.setAttribute("aria-label", "Loss by step of " + group.map((detail) => detail.label).join(", "));
            frame.append(caption, svg);
            holder.append(frame);
            app.drawCurves(svg, group.map((detail) => ({
                label: detail.label, points: detail.points, validations: detail.validations, total: detail.total,
                colour: found.length > 1 ? colour(trained().indexOf(detail)) : "",
            })), found);
        }
        if (found.length > 1) {
            box.append(runs.button(together ? "Side by side" : "In one plot", "Draw the curves together or apart, on the same scale", () => {
                together = !together;
                box.replaceWith(plots());
            }));
        }
        box.append(holder);
        return box;
    }

    // previews

    // The newest preview of a run that is not later than the step.
    function upTo(detail, wanted) {
        return detail.previews.filter((one) => one.step <= wanted).pop() || detail.previews[0];
    }

    function picture(detail, at, index, infotext) {
        const figure = element("figure"), image = figure.appendChild(element("img"));
        image.loading = "lazy";
        image.src = new URL(`sdtrain/v1/view/history/${encodeURIComponent(detail.id)}/preview/${at}/${index}`, document.baseURI);
        image.alt = image.title = infotext.split("\n")[0];
        figure.append(element("figcaption", image.alt));
        app.addPictureActs(figure, infotext);
        return figure;
    }

    function fillPreviews(holder, steps) {
        const columns = trained().filter((detail) => detail.previews.length).map((detail) => {
            const column = element("div"), found = upTo(detail, step);
            if (details.length > 1) column.append(element("div", `${detail.label}, step ${found.step}`, "sdtrain-caption"));
            column.append(...found.pictures.slice(0, MOST_PICTURES).map((one) => picture(detail, found.step, one.index, one.infotext)));
            const more = found.pictures.length - MOST_PICTURES;
            if (more > 0) column.append(element("p", `and ${more} more in its folder`, "sdtrain-note"));
            return column;
        });
        const flat = details.length === 1 && columns.length ? [...columns[0].children] : columns;
        holder.replaceChildren(...flat);
        return steps;
    }

    function previews() {
        const box = element("div"), line = element("label", "", "sdr-slider"), holder = element("div", "", "sdr-previews");
        const steps = [...new Set(trained().flatMap((detail) => detail.previews.map((one) => one.step)))].sort((a, b) => a - b);
        if (!steps.length) {
            box.append(element("p", "No previews were drawn.", "sdtrain-note"));
            return box;
        }
        if (follows || !steps.includes(step)) step = steps[steps.length - 1];
        const slider = element("input"), told = element("b", String(step));
        slider.type = "range";
        slider.max = steps.length - 1;
        slider.value = steps.indexOf(step);
        slider.setAttribute("aria-label", "Step of the previews");
        slider.addEventListener("input", () => {
            step = steps[slider.value];
            follows = +slider.value === steps.length - 1;
            told.textContent = step;
            fillPreviews(holder);
        });
        line.append("Previews, step", told, slider);
        fillPreviews(holder);
        box.append(line, holder);
        return box;
    }

    // several

    async function several() {
        const legend = element("div", "", "sdr-legend");
        for (const [index, detail] of details.entries()) {
            const name = element("span", detail.label + (detail.total ? `, step ${detail.step} of ${detail.total}` : ""));
            name.style.setProperty("--sdr-colour", colour(index));
            legend.append(name);
        }
        const query = details.map((detail) => "run=" + encodeURIComponent(detail.id)).join("&");
        const differences = await runs.ask("view/compare?" + query).catch(() => ({settings: [], labels: []}));
        const parts = [element("div", `${details.length} side by side`, "sdr-title"), legend];
        if (trained().length) parts.push(plots(), previews());
        parts.push(differenceTable(differences));
        return parts;
    }

    function differenceTable(found) {
        if (!found.settings.length) return element("p", "They have the same settings.", "sdtrain-note");
        const table = element("table", "", "sdr-settings"), first = element("tr");
        table.id = "sdtrain_runs_difference";
        first.append(element("th", "Settings that differ"), ...found.labels.map((label) => element("th", label)));
        table.append(first);
        for (const setting of found.settings) {
            const row = element("tr"), name = element("th", setting.label);
            name.append(element("small", setting.path));
            row.append(name, ...setting.values.map((value) => element("td", value)));
            table.append(row);
        }
        return table;
    }
})();
