// What validation measured, on the loss plot: each series has a name, a line, a shape and a colour, and a place in the legend.
(function () {
    "use strict";

    const app = window.sdtrain;
    const SVG = "http://www.w3.org/2000/svg";
    const HELD_OUT = "validation", AVERAGE = "average", STABLE = "training", OF_CONCEPT = HELD_OUT + ": "; // as events call them
    const OWN_SLOTS = new Map([[HELD_OUT, 0], [AVERAGE, 7], [STABLE, 1]]); // in the legend's order
    const FIRST_OF_CONCEPTS = 2, CONCEPT_SLOTS = 5;
    const DASHES = ["7 3", "2 3", "11 3 2 3", "4 4", "7 3 2 3 2 3", "14 4", "1 4", "3 3 3 7"];
    const SHAPES = [
        "M-3.2 0A3.2 3.2 0 1 0 3.2 0A3.2 3.2 0 1 0 -3.2 0Z", // circle
        "M-2.9 -2.9H2.9V2.9H-2.9Z", // square
        "M0 -4L3.8 2.8H-3.8Z", // triangle
        "M0 -4.3L4.3 0L0 4.3L-4.3 0Z", // diamond
        "M0 4L3.8 -2.8H-3.8Z", // triangle on its point
        "M-1.3 -4H1.3V-1.3H4V1.3H1.3V4H-1.3V1.3H-4V-1.3H-1.3Z", // cross
        "M0 -4.6L1.3 -1.4L4.6 -1.4L1.9 .7L2.9 4L0 2L-2.9 4L-1.9 .7L-4.6 -1.4L-1.3 -1.4Z", // star
        "M-4 -2.4L-2.4 -4L0 -1.6L2.4 -4L4 -2.4L1.6 0L4 2.4L2.4 4L0 1.6L-2.4 4L-4 2.4L-1.6 0Z", // diagonal cross
    ];
    const MOST_MARKS = 25;

    const drawing = (tag, facts) => {
        const made = document.createElementNS(SVG, tag);
        for (const [name, value] of Object.entries(facts)) made.setAttribute(name, value);
        return made;
    };

    const element = app.element;

    const number = (value) => Number.isFinite(value) ? value.toPrecision(3) : "not a number";

    function wordsOf(name, several) {
        if (name === STABLE) return ["stable", "The training loss on fixed training pictures, at fixed timesteps with fixed noise"];
        if (name === HELD_OUT) {
            return [several ? "held out, all" : "held out", "The loss on pictures that are not trained on, at fixed timesteps with fixed noise"];
        }
        if (name === AVERAGE) return ["held out, moving average", "The same loss with the average of the weights, which is saved beside them"];
        if (!name.startsWith(OF_CONCEPT)) return [name, ""];
        const concept = name.slice(OF_CONCEPT.length) || "(no name)";
        return ["held out: " + concept, `The loss on the held-out pictures of ${concept}`];
    }

    // Concepts' shapes come round again after the last one, each time with other dashes.
    function look(name, concept) {
        const own = OWN_SLOTS.get(name), round = Math.floor(concept / CONCEPT_SLOTS);
        if (own !== undefined) return {slot: own, dash: DASHES[own]};
        return {slot: FIRST_OF_CONCEPTS + concept % CONCEPT_SLOTS, dash: DASHES[FIRST_OF_CONCEPTS + (concept + round) % CONCEPT_SLOTS]};
    }

    // A job's or run's series: taken in as events tell them, and without what was measured after a step.
    function take(all, event) {
        let series = all.find((one) => one.name === String(event.name));
        if (!series) all.push(series = {name: String(event.name), points: []});
        series.points.push([event.step, event.loss]);
    }

    function goBack(all, step) {
        for (const series of all) series.points = series.points.filter((point) => point[0] <= step);
    }

    // The series of all curves in one order: all that is held out, its average, the stable loss, then the concepts.
    function order(curves) {
        const names = new Set(curves.flatMap((one) => one.validations.filter((series) => series.points.length)).map((series) => series.name));
        const concepts = [...names].filter((name) => !OWN_SLOTS.has(name));
        return [...OWN_SLOTS.keys(), ...concepts].map((name) => {
            const [label, about] = wordsOf(name, concepts.length > 0);
            return {name, label, about, ...look(name, concepts.indexOf(name))};
        }).filter((kind) => names.has(kind.name));
    }

    const pointsOf = (curve, kind) => (curve.validations.find((series) => series.name === kind.name) || {points: []}).points;

    function spread(points) {
        const there = points.filter((point) => Number.isFinite(point[1])), last = there.length - 1;
        const every = Math.ceil(last / (MOST_MARKS - 1)) || 1;
        return there.filter((_, index) => index % every === 0 || index === last);
    }

    function paint(made, kind, colour) {
        made.classList.add("sdtrain-series-" + kind.slot);
        if (colour) made.style.setProperty("--sdtrain-series", colour);
        return made;
    }

    // A curve with a colour of its own (one of several runs) has it in all its series.
    function draw(group, curve, kinds, scale, line) {
        for (const kind of kinds) {
            const points = pointsOf(curve, kind), own = paint(drawing("g", {}), kind, curve.colour);
            const path = drawing("path", {class: "measured", d: line(points, scale, 1), "stroke-dasharray": kind.dash});
            path.dataset.series = kind.name;
            if (points.length) own.append(path);
            for (const [step, loss] of spread(points)) {
                const place = `translate(${scale.x(step).toFixed(1)} ${scale.y(loss).toFixed(1)})`;
                const hit = drawing("circle", {class: "hit", r: 8, transform: place}), title = drawing("title", {});
                title.textContent = `${curve.told ? curve.told + ", " : ""}${kind.label}, step ${step}: ${number(loss)}`;
                hit.append(title);
                own.append(drawing("path", {class: "mark", d: SHAPES[kind.slot], transform: place}), hit);
            }
            group.append(own);
        }
    }

    function key(kind, colour) {
        const made = paint(drawing("svg", {viewBox: "0 0 34 12", class: "sdtrain-series-key", "aria-hidden": "true"}), kind, colour);
        made.append(drawing("path", {class: "measured", d: "M0 6H34", "stroke-dasharray": kind.dash}),
            drawing("path", {class: "mark", d: SHAPES[kind.slot], transform: "translate(17 6)"}));
        return made;
    }

    function told(points, at) {
        const near = at === null ? points[points.length - 1]
            : points.reduce((a, b) => Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a);
        const made = element("span", "", "sdtrain-series-value");
        made.append(element("b", number(near[1])), ` at step ${near[0]}`);
        return made;
    }

    function entry(kind, curves, at) {
        const one = curves.length === 1, made = element("span", "", "sdtrain-series"), name = element("span", kind.label, "sdtrain-series-name");
        made.title = kind.about;
        made.append(key(kind, one ? curves[0].colour : "var(--body-text-color)"), name);
        for (const curve of curves) {
            const points = pointsOf(curve, kind);
            if (!points.length) continue;
            const value = told(points, at);
            if (!one) {
                const run = element("span", curve.told, "sdtrain-series-run");
                run.title = curve.told;
                run.style.setProperty("--sdtrain-series", curve.colour);
                value.prepend(run, " ");
            }
            made.append(" ", value);
        }
        return made;
    }

    // Below the plot: every series with its last value, or those nearest to the step under the pointer.
    function legend(svg, curves, kinds, at) {
        const box = svg.parentElement, there = box.querySelector(".sdtrain-legend");
        const drawn = kinds.filter((kind) => curves.some((curve) => pointsOf(curve, kind).length));
        const made = element("div", "", "sdtrain-legend");
        made.dataset.runs = curves.length;
        made.append(...drawn.map((kind) => entry(kind, curves, at)));
        if (there) there.remove();
        if (drawn.length) svg.after(made);
    }

    app.series = {take, goBack, order, draw, legend, number};
})();
