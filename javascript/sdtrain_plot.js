// The loss plot: raw and smoothed lines, what validation measured, and a reading under the pointer.
(function () {
    "use strict";

    const app = window.sdtrain;
    const WIDTH = 640, HEIGHT = 200, LEFT = 52, RIGHT = 10, TOP = 10, BOTTOM = 24;
    const MAX_POINTS = 800;
    const pointers = new WeakMap(); // the last move over each plot
    let clips = 0; // several plots on one page, each with its own

    function thinned(points) {
        if (points.length <= MAX_POINTS) return points;
        const every = Math.ceil(points.length / MAX_POINTS);
        return points.filter((_, index) => index % every === 0 || index === points.length - 1);
    }

    const measured = (job) => job.validations.flatMap((series) => series.points);

    // The range of what is drawn; single spikes of the raw loss may leave the picture.
    function rangeOf(job) {
        const raw = job.points.map((point) => point[1]).filter(Number.isFinite).sort((a, b) => a - b);
        const rest = [...job.points.map((point) => point[2]), ...measured(job).map((point) => point[1])];
        const values = [...raw.slice(Math.floor(raw.length * 0.01), Math.ceil(raw.length * 0.99)), ...rest]
            .filter(Number.isFinite);
        if (!values.length) return [0, 1];
        let low = values[0], high = values[0]; // by hand: tens of thousands are too many arguments
        for (const value of values) {
            low = Math.min(low, value);
            high = Math.max(high, value);
        }
        const margin = Math.max((high - low) * 0.06, Math.abs(high) * 0.02, 1e-6);
        return [Math.max(0, low - margin), high + margin];
    }

    function scales(job) {
        const first = job.points.length ? job.points[0][0] : 0;
        const last = Math.max(job.total, first + 1);
        const start = Math.min(first, 1, ...measured(job).map((point) => point[0]));
        const [low, high] = rangeOf(job);
        return {
            x: (step) => LEFT + (step - start) / (last - start) * (WIDTH - LEFT - RIGHT),
            y: (loss) => TOP + (1 - (loss - low) / (high - low)) * (HEIGHT - TOP - BOTTOM),
            step: (x) => start + (x - LEFT) / (WIDTH - LEFT - RIGHT) * (last - start),
            low, high, start, last,
        };
    }

    function line(points, scale, column) {
        let path = "", pen = "M";
        for (const point of points) {
            if (!Number.isFinite(point[column])) { pen = "M"; continue; }
            path += pen + scale.x(point[0]).toFixed(1) + " " + scale.y(point[column]).toFixed(1);
            pen = "L";
        }
        return path;
    }

    // Round numbers within the range, about four of them.
    function ticks(low, high) {
        const rough = (high - low) / 4, power = 10 ** Math.floor(Math.log10(rough));
        const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough * 0.7);
        const first = Math.ceil(low / step), last = Math.floor(high / step);
        return Array.from({length: Math.min(12, last - first + 1)}, (_, i) => (first + i) * step);
    }

    function grid(scale) {
        const parts = [];
        for (const loss of ticks(scale.low, scale.high)) {
            const y = scale.y(loss).toFixed(1);
            parts.push(`<line class="grid" x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y}" y2="${y}"/>`,
                `<text x="${LEFT - 6}" y="${+y + 4}" text-anchor="end">${+loss.toPrecision(3)}</text>`);
        }
        for (const step of [scale.start, Math.round((scale.start + scale.last) / 2), scale.last]) {
            const anchor = step === scale.last ? "end" : step === scale.start ? "start" : "middle";
            parts.push(`<text x="${scale.x(step).toFixed(1)}" y="${HEIGHT - 6}" text-anchor="${anchor}">${step}</text>`);
        }
        return parts.join("");
    }

    // Axes, what is drawn between them, and the pointer's line. Marks at the first and last step are seen whole.
    function frame(clipped, scale, paths) {
        return `<clipPath id="${clipped}"><rect x="${LEFT - 5}" y="${TOP - 4}" width="${WIDTH - LEFT - RIGHT + 10}"
            height="${HEIGHT - TOP - BOTTOM + 8}"/></clipPath>` + grid(scale)
            + `<g class="curves" clip-path="url(#${clipped})">${paths}</g>
            <line class="cursor" y1="${TOP}" y2="${HEIGHT - BOTTOM}" visibility="hidden"/>`;
    }

    app.drawPlot = (svg, job) => {
        if (svg.dataset.drawn === job.id + ":" + job.last) return;
        svg.dataset.drawn = job.id + ":" + job.last;
        const scale = scales(job), points = thinned(job.points);
        const clipped = svg.dataset.clip = svg.dataset.clip || "sdtrain_clip_" + (clips += 1);
        svg.innerHTML = frame(clipped, scale, `<path class="raw" d="${line(points, scale, 1)}"/><path class="smooth" d="${line(points, scale, 2)}"/>`);
        const curves = [{validations: job.validations}], kinds = app.series.order(curves);
        app.series.draw(svg.querySelector(".curves"), curves[0], kinds, scale, line);
        lookAt(svg, (event) => app.series.legend(svg, curves, kinds, read(svg, job, scale, event)));
    };

    // Smoothed curves of several runs on the scale of `all` of them; a run alone shows its single steps too.
    app.drawCurves = (svg, some, all) => {
        const curves = some.map((one) => ({...one, told: all.length > 1 ? one.label : ""}));
        const points = all.flatMap((one) => one.points);
        const scale = scales({
            points: points.sort((a, b) => a[0] - b[0]), validations: all.flatMap((one) => one.validations),
            total: Math.max(...all.map((one) => one.total)),
        });
        const drawn = curves.map((one) => {
            const style = one.colour ? ` style="stroke: ${one.colour}"` : "";
            const raw = curves.length === 1 ? `<path class="raw" d="${line(one.points, scale, 1)}"${style}/>` : "";
            return raw + `<path class="smooth" d="${line(one.points, scale, 2)}"${style}/>`;
        });
        svg.innerHTML = frame("sdtrain_clip_" + (clips += 1), scale, drawn.join(""));
        const kinds = app.series.order(all);
        for (const one of curves) app.series.draw(svg.querySelector(".curves"), one, kinds, scale, line);
        lookAt(svg, (event) => app.series.legend(svg, curves, kinds, readAll(svg, curves, scale, event)));
    };

    // What is under the pointer is told while it rests too, as the plot grows.
    function lookAt(svg, tell) {
        svg.onmousemove = (event) => { pointers.set(svg, event); tell(event); };
        svg.onmouseleave = () => { pointers.delete(svg); tell(null); };
        tell(pointers.get(svg) || null);
    }

    // Both readings return the step that they are of, null where there is none.
    function readAll(svg, curves, scale, event) {
        const reading = svg.closest(".sdtrain-plot-box").querySelector("[data-part=reading]"), cursor = svg.querySelector(".cursor");
        cursor.setAttribute("visibility", event ? "visible" : "hidden");
        if (!event) {
            reading.textContent = "";
            return null;
        }
        const box = svg.getBoundingClientRect(), step = scale.step((event.clientX - box.left) / box.width * WIDTH);
        const at = Math.max(scale.start, Math.min(scale.last, step));
        cursor.setAttribute("x1", scale.x(at));
        cursor.setAttribute("x2", scale.x(at));
        const told = curves.filter((one) => one.points.length).map((one) => {
            const near = one.points.reduce((a, b) => Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a);
            const value = app.series.number(near[2]);
            return curves.length > 1 ? `${one.label} ${value}` : `${value} (this step ${app.series.number(near[1])})`;
        });
        reading.textContent = `step ${Math.round(at)}: ${told.join(", ")}`;
        return at;
    }

    function read(svg, job, scale, event) {
        const reading = svg.closest(".sdtrain-plot-box").querySelector("[data-part=reading]");
        const cursor = svg.querySelector(".cursor");
        if (!event || !job.points.length) {
            cursor.setAttribute("visibility", "hidden");
            reading.textContent = "";
            return null;
        }
        const box = svg.getBoundingClientRect();
        const step = scale.step((event.clientX - box.left) / box.width * WIDTH);
        const near = job.points.reduce((a, b) => Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a);
        cursor.setAttribute("visibility", "visible");
        cursor.setAttribute("x1", scale.x(near[0]));
        cursor.setAttribute("x2", scale.x(near[0]));
        reading.textContent = `step ${near[0]}: ${app.series.number(near[1])}, smoothed ${app.series.number(near[2])}`;
        return near[0];
    }
})();
