// How the page asks the server, what its forms would do and what its buttons wish: see lib_sdtrain/ui/asking.py.
(function () {
    "use strict";

    const app = window.sdtrain;
    const LOST_MS = 60000; // what is not answered by then is not waited for
    const WISH_LOST_MS = 10000;
    const TAKEN_MS = 20; // a control has taken its value by then, and the page an answer
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

    // What a person types while other values are on their way into the form is newer than they are: it stands.
    function typing() {
        const typed = new Map(); // by control: what to do to have it back
        let fillings = 0, begun = 0;
        return {
            note: (event) => {
                const box = event.target;
                if (!fillings || !box.matches(BOXES)) return;
                const {checked, value} = box;
                const ticks = ["checkbox", "radio"].includes(box.type);
                typed.set(ticks ? box.closest(".sdtrain-field") : box, () => {
                    if (ticks && box.checked !== checked) box.click();
                    if (!ticks && box.value !== value) app.type(box, value);
                });
            },
            filling: () => {
                if (Date.now() - begun > LOST_MS) fillings = 0;
                if (!fillings) typed.clear();
                fillings += 1;
                begun = Date.now();
            },
            filled: (restored) => {
                fillings = Math.max(0, fillings - 1);
                if (fillings || !typed.size) return;
                const acts = [...typed.values()];
                setTimeout(() => {
                    for (const act of acts) act();
                    restored();
                }, TAKEN_MS);
            },
        };
    }

    // Which subject or preset the form shows is chosen again when the answer to the last choice is in it: Gradio leaves
    // a second one out, and would take what is typed into the form then for the subject that was shown before.
    function choices() {
        const waits = (on) => app.page().toggleAttribute("data-choosing", on);
        let lost = 0;
        return {
            choosing: () => {
                waits(true); // style.css says which controls then take no pointer
                clearTimeout(lost);
                lost = setTimeout(waits, LOST_MS, false);
            },
            chosen: () => setTimeout(waits, TAKEN_MS, false),
            guard: (event) => { // nor a key
                if (getComputedStyle(event.target).pointerEvents === "none") event.preventDefault();
            },
        };
    }

    function form(button) {
        const asked = questions(button), kept = typing();
        return {
            changed: asked.changed, answered: asked.answered, filling: kept.filling, typed: kept.note,
            filled: () => {
                asked.again();
                kept.filled(asked.changed);
            },
        };
    }

    app.forms = {
        train: {...form("sdtrain_train_replan"), ...choices()},
        merge: form("sdtrain_merge_weighed"),
        sample: form("sdtrain_sample_changed"),
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
        page.addEventListener("input", app.forms.train.typed);
        page.addEventListener("keydown", app.forms.train.guard, true);
    });
})();
