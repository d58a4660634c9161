"""The tab: Gradio components made from the settings' declarations. No maths and no torch here."""
