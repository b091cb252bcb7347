"""Marks functions as scenarios of a module."""


def collector():
    """A list of scenarios and the decorator that adds to it."""
    found = []

    def scenario(*versions):
        def mark(function):
            function.versions = versions or (4, 5)
            found.append(function)
            return function
        return mark

    return found, scenario
