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

    app.onReady((page) => {
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
            app.wishes.train.send({fit: JSON.parse(button.dataset.fit)});
        });
        page.addEventListener("input", (event) => {
            if (event.target.matches("[data-part=search]")) search(page, event.target.value);
        });
    });
})();
