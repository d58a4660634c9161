// How the page asks the server, what its forms would do and what its buttons wish: see lib_sdtrain/ui/asking.py.
(function () {
    "use strict";

    const app = window.sdtrain;
    const LOST_MS = 60000; // what is not answered by then is not waited for
    const WISH_LOST_MS = 10000;
    const TAKEN_MS = 20; // a control has taken its value by then, and the page an answer
    const ACTS = "button.sdtrain-acts, .sdtrain-acts label";
    const BOXES = ".sdtrain-field textarea, .sdtrain-field input:not([role=listbox])";

    // Text as typing would put it there.
    app.type = (box, text) => {
        const kind = box.tagName === "TEXTAREA" ? HTMLTextAreaElement : HTMLInputElement;
        Object.getOwnPropertyDescriptor(kind.prototype, "value").set.call(box, text);
        box.dispatchEvent(new Event("input", {bubbles: true}));
    };

    // One question at a time, and another when the form has changed meanwhile.
    function questions(button) {
        let askedAt = 0, again = false;
        const waits = () => Date.now() - askedAt < LOST_MS;
        const asked = {
            again: () => { again = again || waits(); },
            changed: () => {
                if (waits()) {
                    again = true;
                    return;
                }
                again = askedAt > 0; // Gradio leaves this one out if that one is on its way after all
                askedAt = Date.now();
                setTimeout(() => app.press(button), TAKEN_MS);
            },
            answered: () => {
                askedAt = 0;
                if (again) asked.changed();
            },
        };
        return asked;
    }

    // While other values are on their way into the form, what a person types there is newer than they are: it stands.
    // What is pressed that goes by the form (`ui/asking.py:ACTS`) waits for them: it would go by what they replace, and
    // of two alike Gradio would leave out the second. All of it is done again in the order in which it was done.
    function fillings(name, restored) {
        const typed = new Map(); // by control: what to do to have it back
        const held = []; // what was pressed, each with what was typed before it
        const coming = new Set(); // which handlers' answers
        let lost = 0;
        const show = () => app.byId("sdtrain_" + name).toggleAttribute("data-filling", coming.size > 0); // for style.css
        const restore = (acts) => {
            for (const act of acts.values()) act();
            if (acts.size) restored();
            acts.clear();
        };
        const next = () => {
            if (coming.size) return;
            const first = held.shift();
            restore(first ? first.typed : typed);
            if (first) setTimeout(press, TAKEN_MS, first.act);
        };
        const press = (act) => {
            act.click();
            setTimeout(next, TAKEN_MS);
        };
        const come = (which) => {
            coming.delete(which);
            show();
            next();
        };
        const giveUp = () => {
            held.length = 0;
            typed.clear();
            coming.clear();
            show();
        };
        return {
            note: (event) => {
                const box = event.target;
                if (!coming.size || !box.matches(BOXES)) return;
                const {checked, value} = box;
                const ticks = ["checkbox", "radio"].includes(box.type);
                typed.set(ticks ? box.closest(".sdtrain-field") : box, () => {
                    if (ticks && box.checked !== checked) box.click();
                    if (!ticks && box.value !== value) app.type(box, value);
                });
            },
            hold: (event) => {
                const act = event.target.closest(ACTS);
                if (!act || !coming.size) return;
                event.preventDefault();
                event.stopPropagation();
                held.push({act, typed: new Map(typed)});
                typed.clear();
            },
            guard: (event) => { // what style.css gives no pointer takes no key either
                if (coming.size && getComputedStyle(event.target).pointerEvents === "none") event.preventDefault();
            },
            filling: (which) => {
                coming.add(which);
                show();
                clearTimeout(lost);
                lost = setTimeout(giveUp, LOST_MS);
            },
            filled: (which) => setTimeout(come, TAKEN_MS, which),
        };
    }

    function form(name, button) {
        const asked = questions(button), values = fillings(name, asked.changed);
        return {
            ...values, changed: asked.changed, answered: asked.answered,
            filled: (which) => {
                asked.again();
                values.filled(which);
            },
        };
    }

    app.forms = {
        train: form("train", "sdtrain_train_replan"),
        merge: form("merge", "sdtrain_merge_weighed"),
        sample: form("sample", "sdtrain_sample_changed"),
    };

    // Wishes are put down in `app.asked` and told by a hidden button, each after the answer to the one before. A wish
    // may be a function that makes it when its turn has come.
    function wishes(button) {
        const waiting = [];
        let toldAt = 0;
        const next = () => {
            if (!waiting.length || Date.now() - toldAt < WISH_LOST_MS) return;
            const wish = waiting.shift();
            toldAt = Date.now();
            app.asked = JSON.stringify(typeof wish === "function" ? wish() : wish);
            app.press(button);
        };
        return {
            send: (wish) => {
                waiting.push(wish);
                next();
            },
            answered: () => {
                toldAt = 0;
                setTimeout(next, TAKEN_MS);
            },
        };
    }

    app.wishes = {
        train: wishes("sdtrain_train_fill"),
        merge: wishes("sdtrain_merge_fill"),
        dataset: wishes("sdtrain_dataset_command"),
        preparing: wishes("sdtrain_preparing_command"),
        runs: wishes("sdtrain_runs_command"),
    };

    app.onReady((page) => {
        page.addEventListener("input", app.forms.train.note);
        page.addEventListener("keydown", app.forms.train.guard, true);
        for (const [name, {hold}] of Object.entries(app.forms)) {
            const own = app.byId("sdtrain_" + name);
            if (own) own.addEventListener("click", hold, true);
        }
    });
})();
