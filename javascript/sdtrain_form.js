// The form's small helps: mistakes beside their controls, and a search over the advanced settings.
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
        }
    }

    app.onReady((page) => {
        const plan = app.byId("sdtrain_train_plan");
        new MutationObserver(() => showMistakes(page, plan)).observe(plan, {childList: true, subtree: true});
        const message = app.byId("sdtrain_train_message");
        new MutationObserver(() => bringIntoSight(message)).observe(message, {childList: true, subtree: true});
        page.addEventListener("input", (event) => {
            if (event.target.matches("[data-part=search]")) search(page, event.target.value);
        });
    });
})();
