"""The worker (Celery, prefork) and beat.

- `refresh/`: the refresh loop: claims due rows, calls HubSpot, saves the results.
- `journal/`: reads HubSpot's journal for uninstalls.
- `delivery/`: posts alerts to operators and events to our own product.
- `messages/`: which messages are accepted from the broker, and what follows when it fails.

`app.py` is the entry point; `worker_process.py` begins and ends pool processes, `sweep.py` starts their work,
`services.py` and `app_services.py` are what they use, `tasks.py` has the Celery tasks.
"""

from worker.celery_command import replace_process

replace_process()
