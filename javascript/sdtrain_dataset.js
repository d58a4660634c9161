// The Dataset sub-tab: reading a data set, and what it comes to. Its pictures stand in sdtrain_dataset_pictures.js.
(function () {
    "use strict";

    const app = window.sdtrain = window.sdtrain || {};
    const ASK_MS = 400;
    const dataset = app.dataset = {id: "", report: null, shown: ""};
    let asking = null;

    dataset.view = () => app.byId("sdtrain_dataset_view");
    dataset.part = (name) => dataset.view().querySelector(`[data-part="${name}"]`);
    const part = dataset.part;

    const element = app.element;

    dataset.counted = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;
    dataset.percent = (share) => {
        const value = 100 * share;
        return (value > 0 && value < 0.1 ? "under 0.1" : value < 10 ? value.toFixed(1).replace(/\.0$/, "") : Math.round(value)) + " %";
    };
    const counted = dataset.counted, percent = dataset.percent;

    dataset.ask = async (path) => {
        const answer = await fetch(new URL("sdtrain/v1/dataset/" + path, document.baseURI), {credentials: "same-origin"});
        if (!answer.ok) throw new Error("the server answered " + answer.status);
        return answer.json();
    };

    const visible = () => Boolean(dataset.view() && dataset.view().offsetParent !== null && !document.hidden);

    function send(wish) {
        app.wishes.dataset.send(() => ({id: dataset.id, folder: part("folder").value, ...wish}));
    }

    dataset.again = () => send({do: "look", again: true});

    // reading

    async function follow() {
        clearTimeout(asking);
        if (!dataset.id) return;
        const wanted = dataset.id;
        let look = null;
        try {
            look = await dataset.ask(encodeURIComponent(wanted));
        } catch (error) { // the server is away; the Train sub-tab tells
            asking = setTimeout(follow, 10 * ASK_MS);
            return;
        }
        if (wanted !== dataset.id) return;
        show(look);
        if (look.state === "reading") asking = setTimeout(follow, ASK_MS);
        if (look.state === "gone") {
            dataset.id = "";
            if (visible()) send({do: "look"});
        }
    }

    function show(look) {
        const reading = look.state === "reading", phase = look.phase;
        part("progress").hidden = !reading;
        if (reading) showPhase(phase, look.seconds);
        const said = {stopped: "Stopped. Press Read again to go on; what was read is not read twice."}[look.state];
        part("state").textContent = said || (reading && look.notices.length ? look.notices.join(" · ") : "");
        part("problems").replaceChildren(...(look.problems || []).map(problemLine));
        const done = look.state === "done";
        part("report").hidden = !done && !dataset.report;
        part("report").style.opacity = done || !dataset.report ? "" : ".5"; // an earlier one while the next is read
        if (look.state === "failed") {
            dataset.report = null;
            part("report").hidden = true;
        }
        if (done && dataset.shown !== look.id) {
            dataset.shown = look.id;
            dataset.report = look.report;
            showReport(look);
            dataset.showPictures();
        }
    }

    function showPhase(phase, seconds) {
        const known = phase && phase.total > 1;
        const left = known && phase.done ? seconds / phase.done * (phase.total - phase.done) : 0;
        const rest = left > 2 ? `, about ${app.runs.duration(left)} left` : "";
        part("phase").textContent = !phase ? "beginning" : known
            ? `${phase.name}: ${phase.done.toLocaleString("en")} of ${phase.total.toLocaleString("en")}${rest}` : phase.name;
        if (known) part("bar").value = phase.done / phase.total;
        else part("bar").removeAttribute("value");
    }

    function problemLine(problem) {
        const line = element("li"), what = element("b", problem.what);
        line.append(what, problem.fix ? `; ${problem.fix}` : "", element("span", problem.where, "sdtrain-path"));
        return line;
    }

    // the report

    function showReport(look) {
        const report = look.report;
        const facts = [counted(report.images, "picture"), counted(report.steps, "step")];
        if (report.concepts.length > 1) facts.splice(1, 0, counted(report.concepts.length, "concept"));
        if (report.seconds) facts.push("about " + app.runs.duration(report.seconds));
        facts.push(app.runs.size(report.disk_bytes) + " on disk for the run");
        if (report.cached === "disk") facts.push(`up to ${app.runs.size(report.cache_bytes)} for cached latents`);
        part("headline").textContent = facts.join(" · ");
        part("source").textContent = look.folder;
        showMarks(report);
        showBuckets(report);
        showShares(report);
        part("notices").replaceChildren(...report.notices.map((one) => element("li", (one.where ? one.where + ": " : "") + one.text)));
        if (report.more_notices) part("notices").append(element("li", `and ${report.more_notices} more`));
        part("notices-box").hidden = !report.notices.length;
    }

    function showMarks(report) {
        const marks = [];
        const add = (text, which, title) => {
            const made = element(which ? "button" : "span", text, "sdd-mark");
            if (which) {
                made.type = "button";
                made.addEventListener("click", () => dataset.choose(which, true));
            }
            made.title = title || "Show them below";
            marks.push(made);
        };
        const lists = report.lists, left = report.notices.filter((one) => one.text.startsWith("left out")).length;
        if (left) add(`${counted(left, "picture")}${report.more_notices ? " or more" : ""} left out`, "", "See Notices for the reasons");
        if (lists.small) add(`${counted(lists.small, "picture")} too small, enlarged`, "small");
        if (report.twins["the same"]) add(`${counted(report.twins["the same"], "pair")} of the same picture`, "twins");
        if (report.twins["nearly the same"]) add(`${counted(report.twins["nearly the same"], "pair")} nearly the same`, "twins");
        if (lists.bare && lists.bare < report.images) add(`${counted(lists.bare, "picture")} without a caption: the prompt is taken`, "bare");
        if (lists.odd) add(`${counted(lists.odd, "odd caption")}`, "odd");
        for (const [one, two] of report.alike.slice(0, 5)) {
            add(`CLIP confuses ${one} and ${two}`, "", "They are split into the same tokens but for one: choose words that differ more");
        }
        if (!marks.length) {
            marks.push(element("span", "✓ nothing to mend: no twins, no odd captions, none too small", "sdd-mark sdd-good"));
        }
        if (report.compared < report.images) {
            marks.push(element("span", `twins were looked for among the first ${report.compared.toLocaleString("en")} of a concept`, "sdtrain-note"));
        }
        part("marks").replaceChildren(...marks);
    }

    function bar(share, most, className) {
        const made = element("span", "", "sdd-bar " + (className || ""));
        made.style.width = Math.max(2, 90 * share / (most || 1)) + "px";
        return made;
    }

    function cell(row, ...content) {
        row.appendChild(element("td")).append(...content);
    }

    function head(...names) {
        const made = element("thead"), row = made.appendChild(element("tr"));
        row.append(...names.map((name) => element("th", name)));
        return made;
    }

    function openable(row, which) {
        row.dataset.which = which;
        row.tabIndex = 0;
        row.title = "Show them below";
        row.addEventListener("click", () => dataset.choose(which, true));
        row.addEventListener("keydown", (event) => { if (event.key === "Enter") dataset.choose(which, true); });
    }

    function showBuckets(report) {
        const body = element("tbody"), most = Math.max(...report.buckets.map((one) => one.images));
        for (const one of report.buckets) {
            const row = body.appendChild(element("tr"));
            cell(row, `${one.size[0]} × ${one.size[1]}`);
            cell(row, bar(one.images, most), element("span", one.images.toLocaleString("en"), "sdd-number"));
            cell(row, ...(one.lost >= 0.0005 ? [bar(one.lost, 1, "sdd-cut"), percent(one.lost)] : ["–"]));
            cell(row, one.enlarged ? one.enlarged.toLocaleString("en") : "–");
            openable(row, `bucket ${one.size[0]}x${one.size[1]}`);
        }
        part("buckets").replaceChildren(head("Size", "Pictures", "Cut away", "Enlarged"), body);
    }

    function showShares(report) {
        const body = element("tbody");
        report.concepts.forEach((concept, index) => {
            const row = body.appendChild(element("tr"));
            cell(row, concept.name || "no name");
            cell(row, concept.images.toLocaleString("en"));
            cell(row, bar(concept.share, 1), percent(concept.share));
            cell(row, concept.class_images ? `${concept.class_images} (${concept.class_images_to_make} to make)` : "–");
            openable(row, `concept ${index}`);
            for (const group of concept.groups || []) {
                const inner = body.appendChild(element("tr", "", "sdd-group"));
                cell(inner, group.name || "the folder itself");
                cell(inner, group.images.toLocaleString("en"));
                cell(inner, bar(group.share, 1), `${percent(group.share)}, each ×${group.multiply}`);
                cell(inner, "");
            }
        });
        part("shares").replaceChildren(head("Concept", "Pictures", "Share", "Class pictures"), body);
    }

    // the page

    app.onReady(() => {
        const view = dataset.view();
        view.addEventListener("click", (event) => {
            const wanted = event.target.closest("[data-do]");
            if (!wanted) return;
            if (wanted.dataset.do === "look") dataset.again();
            else if (wanted.dataset.do === "stop") send({do: "stop"});
            else dataset.turn(wanted.dataset.do);
        });
        part("folder").addEventListener("change", () => send({do: "look"}));
        new MutationObserver(() => {
            const found = app.byId("sdtrain_dataset_message").querySelector("[data-look]");
            part("problems").replaceChildren();
            if (!found) { // a mistake stands there
                part("report").hidden = true;
                part("progress").hidden = true;
                dataset.report = null;
                dataset.shown = "";
                return;
            }
            dataset.id = found.dataset.look;
            follow();
        }).observe(app.byId("sdtrain_dataset_message"), {childList: true, subtree: true});
        // The form may be filled only after somebody has come here.
        new MutationObserver(() => { if (visible()) send({do: "look"}); })
            .observe(app.byId("sdtrain_train_plan"), {childList: true, subtree: true});
        // Whoever comes back from Train sees what Train would use now.
        new IntersectionObserver((seen) => { if (seen.some((one) => one.isIntersecting)) send({do: "look"}); }).observe(view);
    });
})();
