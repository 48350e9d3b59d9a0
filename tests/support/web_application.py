"""The web application in the process of a test."""

from __future__ import annotations

from types import CodeType

from flask import Flask
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket

from web.app import create_app
from web.services import Services


class CompiledTemplates(BytecodeCache):
    """Of all applications of this process: each would compile its own, which takes longer than most tests."""

    def __init__(self) -> None:
        self._code: dict[tuple[str, str], CodeType | None] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._code.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._code[bucket.key, bucket.checksum] = bucket.code


_compiled_templates = CompiledTemplates()


def make_application(services: Services) -> Flask:
    app = create_app(services)
    app.jinja_env.bytecode_cache = _compiled_templates
    return app
