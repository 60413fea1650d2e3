"""Demo pictures rendered by the project itself: no download, no licence question, known truth."""

from recognition.demo.rendering import DemoPicture, DemoSet, load_demo, render_demo

__all__ = ["DemoPicture", "DemoSet", "load_demo", "render_demo"]
