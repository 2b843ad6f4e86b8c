"""The lifecycle of a service: it starts, serves until it is told to stop, and ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager

import structlog
from tunewheel_contracts.errors import TransientError

from tunewheel_runtime.kafka_refusals import not_allowed
from tunewheel_runtime.retry import Backoff, retry
from tunewheel_runtime.service import Service
from tunewheel_runtime.waiting import end_all

log = structlog.get_logger(__name__)


class Lifecycle:
    """Starts the parts of ``service`` in order, and stops them.

    Start order: telemetry, producer, leadership (if only one process at a time is active), the offsets from
    which commands are signed, views and replays (read to the end), startup hooks, subscriptions. A hot
    standby reads its views and replays before it waits for the leadership. Until the start is complete
    ``/health/ready`` answers 503, except for a standby.

    ``while_reading`` is entered while the start reads the log.
    """

    def __init__(
        self,
        service: Service,
        *,
        while_reading: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._service = service
        self._while_reading = while_reading

    async def serve(self) -> None:
        """Serve until ``Service.stop`` or ``Service.fail`` is called. ``run_service`` adds signal handling.

        Raises:
            NoIdentity: callers could not be identified, or commands not be signed or verified.
            InvalidTls: the certificate or its key cannot be used.
        """
        service = self._service
        service.doors.require_identity()
        if service.signed:
            service.signatures.require_keys()
        service.doors.open()
        async with self._running():
            await service.doors.serve(service.stopping)

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncGenerator[None]:
        starters = (
            asyncio.create_task(self._start_patiently(), name="start"),
            asyncio.create_task(self._start_without_broker(), name="start without broker"),
        )
        async with self._service.doors.lifespan():
            yield
        await end_all(*starters)
        await self._close()

    async def _start_patiently(self) -> None:
        kafka = self._service.settings.bootstrap_servers
        try:
            await retry(self._start, Backoff(2**31, 0.5, 5.0), what=f"connecting to {kafka}")
        except Exception as error:
            self._service.fail(error)

    async def _start_without_broker(self) -> None:
        service = self._service
        if service.without_broker is None:
            return
        hook, after_seconds = service.without_broker
        while not service.health.started:
            if service.broker_watch.silent_seconds >= after_seconds:
                try:
                    answers = await hook()
                    service.health.started = (answers or service.health.started) and service.failure is None
                except Exception as error:
                    service.fail(error)
                return
            await asyncio.sleep(0.1)

    async def _start(self) -> None:
        """Start all parts. After a failure all parts are stopped again, so that a start can be repeated."""
        service = self._service
        service.doors.begin()
        try:
            await service.publisher.start()
            service.health.is_reading = True
            service.broker_watch.start()
            if not service.is_hot_standby:
                await self._become_active()
            await service.signatures.begin(service.signed)
            with self._while_reading():
                for reader in service.readers:
                    await reader.start()
            service.health.is_reading = False
            if service.is_hot_standby:
                await self._become_active()
                await asyncio.gather(*(reader.refresh() for reader in service.readers))
            for hook in service.startup_hooks:
                await hook()
            await service.subscriptions.start()
        except BaseException as error:
            await self._disconnect()
            if refusal := not_allowed(error):
                raise TransientError(str(refusal)) from error  # An operator may grant the right meanwhile.
            raise
        service.health.started = service.failure is None
        log.info("ready", http_port=service.doors.http_port, health_port=service.doors.health_port)

    async def _become_active(self) -> None:
        if self._service.leadership is not None:
            await self._service.leadership.gain()
            await self._service.publisher.fence()

    async def _close(self) -> None:
        """Stop all parts in reverse order. Running jobs can write a checkpoint."""
        service = self._service
        service.health.started = False
        await service.subscriptions.stop()
        for hook in reversed(service.shutdown_hooks):
            try:
                await hook()
            except Exception:
                log.exception("shutdown_hook_failed")  # The other hooks must still run.
        await self._disconnect()
        service.telemetry.shutdown()

    async def _disconnect(self) -> None:
        service = self._service
        await service.broker_watch.stop()
        for reader in service.readers:
            await reader.stop()
        await service.publisher.stop()
        if service.leadership is not None:
            await service.leadership.resign()
