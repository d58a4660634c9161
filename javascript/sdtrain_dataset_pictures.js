// The Dataset sub-tab's pictures with their crops, page by page, and the prompts in their tokens.
(function () {
    "use strict";

    const app = window.sdtrain, dataset = app.dataset;
    const PAGE = 48, STAGE = 168, SETTLE_MS = 350;
    const NAMES = {
        all: "All", cut: "Most cut away first", small: "Too small, enlarged", twins: "Twins, side by side",
        bare: "Without a caption", odd: "Odd captions",
    };
    const element = app.element;
    const part = (name) => dataset.part(name);
    let first = 0, total = 0, wanted = 0;

    dataset.showPictures = () => {
        const report = dataset.report, before = part("which").value;
        const option = (value, text) => {
            const made = element("option", text);
            made.value = value;
            return made;
        };
        const lists = Object.entries(report.lists).filter(([name, count]) => count || name === "all");
        part("which").replaceChildren(
            ...lists.map(([name, count]) => option(name, `${NAMES[name]} (${count.toLocaleString("en")})`)),
            ...report.buckets.map((one) => option(`bucket ${one.size[0]}x${one.size[1]}`, `Size ${one.size[0]} × ${one.size[1]} (${one.images})`)),
            ...(report.concepts.length > 1 ? report.concepts.map((one, index) => option(`concept ${index}`, `${one.name} (${one.images})`)) : []),
        );
        part("which").value = [...part("which").options].some((one) => one.value === before) ? before : "all";
        part("frame").textContent = report.padded ? "The frame is what is trained: the whole picture on its ground."
            : "The frame is what is trained; what is dark is cut away." + (report.random_crop ? " With random crops it moves from sample to sample." : "");
        showPrompts(report);
        turnTo(0);
    };

    dataset.choose = (which, scroll) => {
        part("which").value = which;
        part("search").value = "";
        turnTo(0);
        if (scroll) app.byId("sdtrain_dataset_pictures").scrollIntoView({behavior: "smooth", block: "start"});
    };

    dataset.turn = (way) => turnTo(Math.max(0, first + (way === "on" ? PAGE : -PAGE)));

    async function turnTo(place) {
        const asked = wanted += 1, grid = part("grid"), look = dataset.shown; // another may be read meanwhile
        const query = new URLSearchParams({which: part("which").value, first: place, count: PAGE, search: part("search").value});
        grid.dataset.waiting = "true";
        let page = null;
        try {
            page = await dataset.ask(`${encodeURIComponent(look)}/pictures?${query}`);
        } catch (error) { // the pictures that are there stay
            grid.dataset.waiting = "false";
            return;
        }
        if (asked !== wanted) return;
        first = place;
        total = page.total;
        grid.dataset.waiting = "false";
        grid.replaceChildren(...page.rows.map((row) => figure(row, look)));
        const last = first + page.rows.length;
        part("place").textContent = total ? `${(first + 1).toLocaleString("en")}–${last.toLocaleString("en")} of ${total.toLocaleString("en")}` : "none";
        dataset.view().querySelector("[data-do=back]").disabled = first === 0;
        dataset.view().querySelector("[data-do=on]").disabled = last >= total;
    }

    // The picture and its crop on one stage that holds both: a crop that reaches beyond the picture is padding.
    function stage(row, look) {
        const [width, height] = row.resize, [x, y, w, h] = row.crop;
        const left = Math.min(0, x), top = Math.min(0, y);
        const wide = Math.max(width, x + w) - left, high = Math.max(height, y + h) - top;
        const scale = STAGE / Math.max(wide, high);
        const made = element("div", "", "sdd-stage"), whole = made.appendChild(element("div", "", "sdd-whole"));
        const put = (one, px, py, pw, ph) => Object.assign(one.style, {
            left: `${100 * (px - left) / wide}%`, top: `${100 * (py - top) / high}%`, width: `${100 * pw / wide}%`, height: `${100 * ph / high}%`,
        });
        Object.assign(whole.style, {width: wide * scale + "px", height: high * scale + "px"});
        const image = element("img");
        image.loading = "lazy";
        image.alt = row.name;
        image.src = new URL(`sdtrain/v1/dataset/${encodeURIComponent(look)}/pictures/${row.number}?mark=${row.mark}`, document.baseURI);
        image.addEventListener("error", () => made.replaceChildren(element("div", "this picture cannot be shown: it was changed or removed", "sdd-lost")));
        put(image, 0, 0, width, height);
        whole.append(image);
        const crop = whole.appendChild(element("div", "", "sdd-crop"));
        put(crop, x, y, w, h);
        return made;
    }

    function figure(row, look) {
        const made = element("figure"), words = element("figcaption");
        const cut = row.lost >= 0.005 ? `, ${dataset.percent(row.lost)} cut away` : "";
        words.append(element("span", row.name),
            element("span", `${row.size[0]} × ${row.size[1]} → ${row.bucket[0]} × ${row.bucket[1]}${cut}`, "sdd-facts"));
        const flags = [row.twin, row.enlarged ? "too small, enlarged" : "", row.caption === null ? "no caption" : "", row.remark].filter(Boolean);
        if (flags.length) words.append(element("span", flags.join(", "), "sdd-flag"));
        if (row.caption) words.append(element("span", row.caption, "sdd-words"));
        made.title = [(row.folder ? row.folder + "/" : "") + row.name, row.caption || ""].filter(Boolean).join("\n");
        made.append(stage(row, look), words);
        return made;
    }

    function showPrompts(report) {
        const tokens = report.tokens;
        const shares = Object.entries(tokens.chunks).map(([size, share]) => `${dataset.percent(share)} take ${size} tokens`).join(", ");
        part("tokens").textContent = `The first ${report.prompts.length} samples, as CLIP reads them. Up to ${tokens.longest} tokens; ${shares}`
            + (tokens.cut ? `; ${dataset.percent(tokens.cut)} lose their end: raise Longest prompt on Train.` : ".");
        part("prompts").replaceChildren(...report.prompts.map((prompt) => {
            const line = element("li");
            line.append(element("span", prompt.text || "(an empty caption)"));
            prompt.chunks.forEach((chunk) => {
                const box = line.appendChild(element("div", "", "sdd-chunk"));
                box.append(...chunk.map((piece) => element("code", piece.trim() || "␣", piece.endsWith(" ") ? "sdd-end" : "")));
                box.append(element("small", `${chunk.length} of 75`));
            });
            if (prompt.cut) line.append(element("div", `${dataset.counted(prompt.cut, "token")} cut off`, "sdtrain-warn"));
            return line;
        }));
    }

    app.onReady(() => {
        let settling = null;
        part("which").addEventListener("change", () => turnTo(0));
        part("search").addEventListener("input", () => {
            clearTimeout(settling);
            settling = setTimeout(() => turnTo(0), SETTLE_MS);
        });
    });
})();
