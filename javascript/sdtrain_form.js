// The form's small helps: mistakes beside their controls, those that matter alone, and a search over the advanced ones.
(function () {
    "use strict";

    const app = window.sdtrain;

    function showMistakes(page, plan) {
        for (const old of page.querySelectorAll(".sdtrain-mistake")) old.remove();
        for (const old of page.querySelectorAll(".sdtrain-wrong")) old.classList.remove("sdtrain-wrong");
        for (const line of plan.querySelectorAll("[data-control]")) {
            const control = line.dataset.control && app.byId(line.dataset.control);
            if (!control) continue;
            const words = document.createElement("div");
            words.className = "sdtrain-mistake";
            words.textContent = [...line.childNodes].filter((part) => !part.matches || !part.matches(".sdtrain-path"))
                .map((part) => part.textContent).join("");
            control.classList.add("sdtrain-wrong");
            control.appendChild(words);
            const folded = control.closest("#sdtrain_train_more");
            const opener = folded && folded.querySelector(".label-wrap:not(.open)");
            if (opener) opener.click();
        }
    }

    // Controls that do not matter as the others stand are out of sight, but for those with a mistake and while one
    // searches.
    function hideIdle(page, told) {
        const idle = new Set(told.dataset.idle.split(" "));
        for (const field of page.querySelectorAll(".sdtrain-field")) {
            field.classList.toggle("sdtrain-idle", idle.has(field.id));
        }
    }

    // What is told at the top of the form may answer a button at its end.
    function bringIntoSight(message) {
        if (!message.textContent.trim() || message.offsetParent === null) return;
        const {top, bottom} = message.getBoundingClientRect();
        if (top < 0 || bottom > window.innerHeight) message.scrollIntoView({block: "center", behavior: "smooth"});
    }

    function search(page, text) {
        const words = text.toLowerCase().split(/\s+/).filter(Boolean);
        for (const group of page.querySelectorAll(".sdtrain-group")) {
            let found = 0;
            for (const field of group.querySelectorAll(".sdtrain-field")) {
                const said = (field.textContent + " " + field.id.replaceAll("_", " ")).toLowerCase();
                const fits = words.every((word) => said.includes(word.replaceAll("_", " ")));
                field.classList.toggle("sdtrain-hidden", !fits);
                found += fits;
            }
            group.classList.toggle("sdtrain-hidden", !found);
            group.classList.toggle("sdtrain-searched", words.length > 0);
        }
    }

    // One question for the plan at a time, and another when the form has changed meanwhile: Gradio leaves out an event
    // whose like is still on its way, and answers may come in any order.
    const LOST_MS = 60000; // a question that is not answered by then is not waited for
    let askedAt = 0, again = false;

    const waits = () => Date.now() - askedAt < LOST_MS;
    app.formChanged = () => {
        if (waits()) {
            again = true;
            return;
        }
        askedAt = Date.now();
        again = false;
        setTimeout(() => app.press("sdtrain_train_replan"), 20); // the control has taken its value by then
    };
    app.planAnswered = () => {
        askedAt = 0;
        if (again) app.formChanged();
    };

    // What a person types while other values are on their way into the form is newer than they are: it stands.
    const BOXES = ".sdtrain-field textarea, .sdtrain-field input:not([role=listbox])";
    const typed = new Map(); // by control: what to do to have it back
    let fillings = 0, filledAt = 0;

    function typeAgain(box, value) {
        if (box.value === value || !box.isConnected) return;
        const kind = box.tagName === "TEXTAREA" ? HTMLTextAreaElement : HTMLInputElement;
        Object.getOwnPropertyDescriptor(kind.prototype, "value").set.call(box, value);
        box.dispatchEvent(new Event("input", {bubbles: true}));
    }

    function noteTyped(event) {
        const box = event.target;
        if (!fillings || !box.matches(BOXES)) return;
        const {checked, value} = box;
        const ticks = ["checkbox", "radio"].includes(box.type);
        typed.set(ticks ? box.closest(".sdtrain-field").id : box,
            ticks ? () => { if (box.checked !== checked) box.click(); } : () => typeAgain(box, value));
    }

    app.formFilling = () => {
        if (Date.now() - filledAt > LOST_MS) fillings = 0;
        if (!fillings) typed.clear();
        fillings += 1;
        filledAt = Date.now();
    };
    app.formFilled = () => {
        again = again || waits();
        fillings = Math.max(0, fillings - 1);
        if (fillings || !typed.size) return;
        const restored = [...typed.values()];
        setTimeout(() => { // the controls show what came by then
            for (const restore of restored) restore();
            app.formChanged();
        }, 20);
    };

    app.onReady((page) => {
        page.addEventListener("input", noteTyped);
        const plan = app.byId("sdtrain_train_plan");
        new MutationObserver(() => showMistakes(page, plan)).observe(plan, {childList: true, subtree: true});
        const told = app.byId("sdtrain_train_idle");
        const follow = () => {
            const idle = told.querySelector("[data-idle]");
            if (idle) hideIdle(page, idle);
        };
        new MutationObserver(follow).observe(told, {childList: true, subtree: true});
        follow();
        const message = app.byId("sdtrain_train_message");
        new MutationObserver(() => bringIntoSight(message)).observe(message, {childList: true, subtree: true});
        plan.addEventListener("click", (event) => {
            const button = event.target.closest("[data-fit]");
            if (!button) return;
            app.asked = `{"fit": ${button.dataset.fit}}`;
            app.press("sdtrain_train_fill");
        });
        page.addEventListener("input", (event) => {
            if (event.target.matches("[data-part=search]")) search(page, event.target.value);
        });
    });
})();
