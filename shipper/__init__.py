"""Ships an OpenAI organization's audit log into ClickHouse: no event lost, none counted twice."""

__version__ = "0.1.0"
