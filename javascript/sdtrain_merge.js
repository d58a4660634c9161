// The Merge sub-tab's sliders: one for each block, in step with a text of numbers, which alone is sent.
(function () {
    "use strict";

    const app = window.sdtrain;
    const LOOK_MS = 250, SETTLE_MS = 450, DECIMALS = 4, KEPT = 50;
    const LEFT = 30, RIGHT = 10, TOP = 12, BOTTOM = 40;
    let WIDTH = 420, HEIGHT = 190; // of the curve, in pixels of the page

    // `values` and `text` of each set; `text` is what the box held when it was last looked at.
    let root = null, blocks = [], active = "alpha", undo = [], settling = null, far = {};
    let sets = {alpha: {values: [], text: null}, beta: {values: [], text: null}};

    const part = (name) => root.querySelector(`[data-part="${name}"]`);
    const row = (block) => root.querySelector(`.sdm-row[data-block="${block}"]`);
    const box = (set) => {
        const holder = app.byId("sdtrain_merge_weights_" + set);
        return holder && holder.querySelector("textarea, input");
    };
    const round = (value) => +value.toFixed(DECIMALS);
    const written = (values) => values.join(",");

    function parsed(text) {
        const fields = text.split(/[,\s]+/).filter(Boolean);
        const wrong = fields.filter((field) => !Number.isFinite(Number(field)));
        const letters = wrong.filter((field) => /^[RUX]$/.test(field));
        if (letters.length && letters.length === wrong.length && fields.length === blocks.length) {
            return {error: `${letters[0]} asks for a random number: roll the dice below`};
        }
        if (wrong.length) return {error: `${wrong.slice(0, 3).map((field) => `"${field}"`).join(", ")}: not a number`};
        if (fields.length !== blocks.length) {
            const names = `${blocks[0]}, ${blocks[1]} ... ${blocks[blocks.length - 1]}`;
            return {error: `${fields.length} numbers, but model A has ${blocks.length} weights: ${names}`};
        }
        return {values: fields.map(Number)};
    }

    // Puts text into Gradio's box as typing does; the form's answer follows when nothing has moved for a moment.
    function write(set, values) {
        const target = box(set), text = written(values);
        sets[set] = {values, text};
        if (target) app.type(target, text);
        settle();
    }

    function settle() {
        clearTimeout(settling);
        settling = setTimeout(app.forms.merge.changed, SETTLE_MS);
    }

    function change(values, keepsUndo) {
        if (keepsUndo) {
            undo.push([active, sets[active].values]);
            undo = undo.slice(-KEPT);
        }
        const before = sets[active].values; // who moves one slider changes no other weight
        write(active, values.map((value, i) => (before && value === before[i] ? value : round(value))));
        show();
    }

    // shows

    function range() {
        const values = [...sets.alpha.values, ...(root.dataset.beta === "true" ? sets.beta.values : [])];
        return [Math.min(0, Math.floor(Math.min(...values))), Math.max(1, Math.ceil(Math.max(...values)))];
    }

    function show() {
        const {values} = sets[active], [low, high] = range();
        values.forEach((value, index) => {
            const line = row(blocks[index]);
            const slider = line.querySelector("input[type=range]"), number = line.querySelector("input[type=number]");
            slider.min = low;
            slider.max = high;
            slider.value = value;
            slider.style.setProperty("--fill", 100 * (value - low) / (high - low) + "%");
            slider.setAttribute("aria-label", `${blocks[index]}, ${active}`);
            slider.setAttribute("aria-valuetext", String(value));
            if (document.activeElement !== number) number.value = value;
        });
        part("undo").disabled = !undo.length;
        for (const button of root.querySelectorAll("[data-set]")) {
            button.setAttribute("aria-checked", String(button.dataset.set === active));
        }
        drawCurve();
    }

    const xOf = (index) => LEFT + (index + 0.5) / blocks.length * (WIDTH - LEFT - RIGHT);
    const yOf = (value, low, high) => TOP + (1 - (value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);

    function line(values, low, high) {
        return values.map((value, i) => (i ? "L" : "M") + xOf(i).toFixed(1) + " " + yOf(value, low, high).toFixed(1)).join("");
    }

    function drawCurve() {
        const svg = root.querySelector(".sdm-curve"), [low, high] = range(), parts = [];
        WIDTH = svg.clientWidth || WIDTH;
        HEIGHT = svg.clientHeight || HEIGHT;
        svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
        const floor = HEIGHT - BOTTOM, most = Math.max(...Object.values(far), 1e-12);
        blocks.forEach((block, i) => {
            const tall = (far[block] || 0) / most * (floor - TOP);
            if (tall > 0.5) parts.push(`<rect class="far" x="${xOf(i) - 5}" width="10" y="${floor - tall}" height="${tall}"/>`);
        });
        for (const value of [low, (low + high) / 2, high]) {
            const y = yOf(value, low, high);
            parts.push(`<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y}" y2="${y}"/>`,
                `<text x="${LEFT - 4}" y="${y + 3}" text-anchor="end">${value}</text>`);
        }
        blocks.forEach((block, i) => {
            if (/^(BASE|M00)$|0[048]$/.test(block)) parts.push(
                `<text transform="translate(${xOf(i) + 3} ${HEIGHT - 4}) rotate(-60)">${block}</text>`);
        });
        const other = active === "alpha" ? "beta" : "alpha";
        if (root.dataset.beta === "true" && sets[other].values.length === blocks.length) {
            parts.push(`<path class="other" d="${line(sets[other].values, low, high)}"/>`);
        }
        const {values} = sets[active];
        parts.push(`<path class="line" d="${line(values, low, high)}"/>`, ...values.map(
            (value, i) => `<circle r="3" cx="${xOf(i).toFixed(1)}" cy="${yOf(value, low, high).toFixed(1)}"/>`));
        svg.innerHTML = parts.join("");
    }

    // Whatever changed the text (typing, a preset, dice, an earlier merge), the sliders follow.
    function look() {
        const page = app.byId("sdtrain_merge");
        if (!page || page.offsetParent === null) return;
        const found = page.querySelector(".sdm");
        if (!found) return;
        const fresh = found !== root;
        if (fresh) begin(found);
        const beta = box("beta"), hasBeta = String(Boolean(beta && beta.offsetParent !== null));
        const switched = root.dataset.beta !== hasBeta;
        root.dataset.beta = hasBeta;
        if (hasBeta === "false" && active === "beta") choose("alpha");
        let moved = fresh || switched, error = "";
        for (const set of hasBeta === "true" ? ["alpha", "beta"] : ["alpha"]) {
            const target = box(set);
            if (!target) continue;
            const read = parsed(target.value);
            if (read.error && sets[set].wrong !== target.value) settle();
            sets[set].wrong = read.error ? target.value : "";
            if (read.error) error = error || (set === active ? read.error : `${set}: ${read.error}`);
            else if (target.value !== sets[set].text || sets[set].values.length !== blocks.length) {
                if (sets[set].text !== null && !fresh) settle();
                sets[set] = {values: read.values, text: target.value};
                moved = true;
            }
        }
        root.dataset.wrong = String(Boolean(error));
        if (part("error").textContent !== error) part("error").textContent = error;
        if (moved && sets[active].values.length === blocks.length) show();
        showDifference(page);
    }

    function showDifference(page) {
        const holder = page.querySelector(".sdm-difference"), text = holder ? holder.dataset.blocks : "{}";
        if (root.dataset.far === text) return;
        root.dataset.far = text;
        far = JSON.parse(text);
        const most = Math.max(...Object.values(far), 1e-12);
        for (const block of blocks) {
            const bar = row(block).querySelector(".sdm-far");
            bar.hidden = !(block in far);
            bar.style.width = 100 * (far[block] || 0) / most + "%";
            bar.parentElement.title = block in far ? `A and B are ${far[block].toPrecision(3)} apart in ${block}` : "";
        }
        if (sets[active].values.length === blocks.length) drawCurve();
    }

    function begin(found) {
        root = found;
        blocks = root.dataset.blocks.split(",");
        undo = [];
        part("to").value = blocks[blocks.length - 1];
        root.addEventListener("input", onInput);
        root.addEventListener("click", onClick);
        root.addEventListener("pointerover", (event) => showPartner(event.target.closest(".sdm-row")));
        const svg = root.querySelector(".sdm-curve");
        new ResizeObserver(() => { if (sets[active].values.length === blocks.length) drawCurve(); }).observe(svg);
        svg.addEventListener("pointerdown", (event) => { svg.setPointerCapture(event.pointerId); remember(); draw(event, true); });
        svg.addEventListener("pointermove", (event) => draw(event, event.buttons === 1));
        svg.addEventListener("pointerleave", () => { part("reading").textContent = "drag on the curve to draw weights"; });
    }

    // acts

    const remember = () => { undo.push([active, sets[active].values]); undo = undo.slice(-KEPT); };

    function choose(set) {
        active = set;
        const target = app.byId("sdtrain_merge_active"), inner = target && target.querySelector("textarea, input");
        if (inner) app.type(inner, set);
    }

    function onInput(event) {
        const line = event.target.closest(".sdm-row");
        if (event.target.dataset.part === "over") part("range").hidden = event.target.value !== "range";
        if (event.target.dataset.part === "tool") {
            part("amount").hidden = !["set", "add", "multiply"].includes(event.target.value);
        }
        if (!line || !Number.isFinite(event.target.valueAsNumber)) return;
        if (event.target.dataset.moving !== "true") remember();
        event.target.dataset.moving = "true";
        clearTimeout(event.target.resting);
        event.target.resting = setTimeout(() => { event.target.dataset.moving = ""; }, 800);
        const values = [...sets[active].values];
        values[blocks.indexOf(line.dataset.block)] = event.target.valueAsNumber;
        change(values);
    }

    function draw(event, pressed) {
        const area = event.currentTarget.getBoundingClientRect(), [low, high] = range();
        const x = (event.clientX - area.left) / area.width * WIDTH, y = (event.clientY - area.top) / area.height * HEIGHT;
        const index = Math.floor((x - LEFT) / (WIDTH - LEFT - RIGHT) * blocks.length);
        if (index < 0 || index >= blocks.length) return;
        if (pressed) {
            const share = 1 - (y - TOP) / (HEIGHT - TOP - BOTTOM), values = [...sets[active].values];
            values[index] = Math.round((low + Math.min(1, Math.max(0, share)) * (high - low)) * 100) / 100;
            change(values);
        }
        const apart = blocks[index] in far ? `, A and B ${far[blocks[index]].toPrecision(3)} apart` : "";
        part("reading").textContent = `${blocks[index]}: ${sets[active].values[index]}${apart}`;
    }

    function chosen() {
        const over = part("over").value, from = blocks.indexOf(part("from").value), to = blocks.indexOf(part("to").value);
        const fits = {
            all: () => true, unet: (name) => name !== "BASE", in: (name) => name.startsWith("IN"), mid: (name) => name === "M00",
            out: (name) => name.startsWith("OUT"), base: (name) => name === "BASE",
            range: (name, i) => i >= Math.min(from, to) && i <= Math.max(from, to),
        }[over];
        return blocks.map((name, i) => fits(name, i));
    }

    function partner(index) {
        const name = blocks[index], depth = (blocks.length - 2) / 2;
        const other = depth - 1 - Number(name.slice(-2));
        if (name.startsWith("IN")) return blocks.indexOf("OUT" + String(other).padStart(2, "0"));
        return name.startsWith("OUT") ? blocks.indexOf("IN" + String(other).padStart(2, "0")) : index;
    }

    function showPartner(line) {
        for (const old of root.querySelectorAll("[data-partner]")) delete old.dataset.partner;
        if (line) row(blocks[partner(blocks.indexOf(line.dataset.block))]).dataset.partner = "true";
    }

    function apply() {
        const old = sets[active].values, within = chosen(), tool = part("tool").value, amount = part("amount").valueAsNumber;
        if (["set", "add", "multiply"].includes(tool) && !Number.isFinite(amount)) {
            part("amount").focus();
            return;
        }
        const make = {
            set: () => amount, add: (value) => value + amount, multiply: (value) => value * amount,
            invert: (value) => 1 - value,
            smooth: (value, i) => {
                const near = [i - 1, i + 1].filter((k) => k > 0 && k < old.length && within[k]).map((k) => old[k]);
                return i ? (2 * value + near.reduce((a, b) => a + b, 0)) / (2 + near.length) : value; // BASE has no neighbours
            },
            mirror_in: (value, i) => (blocks[i].startsWith("OUT") ? old[partner(i)] : value),
            mirror_out: (value, i) => (blocks[i].startsWith("IN") ? old[partner(i)] : value),
        }[tool];
        change(old.map((value, i) => (within[i] ? make(value, i) : value)), true);
    }

    function onClick(event) {
        const button = event.target.closest("button");
        if (!button || root.dataset.wrong === "true" && button.dataset.part === "apply") return;
        if (button.dataset.set) {
            choose(button.dataset.set);
            show();
        } else if (button.dataset.part === "apply") {
            apply();
        } else if (button.dataset.part === "undo" && undo.length) {
            const [set, values] = undo.pop();
            choose(set);
            write(set, values);
            show();
        }
    }

    app.onReady(() => {
        app.press("sdtrain_merge_load");
        setInterval(look, LOOK_MS);
    });
})();
