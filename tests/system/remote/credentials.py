"""Tries to log in, as a service would, and says what happened: in, denied or broken.

Reads a list of {kind, url} as JSON from the standard input, under the key `attempts`. Uses what
the services use, which is why it runs on their hosts.
"""

import json
import sys

# What PostgreSQL and RabbitMQ say to one who may not; anything else proves nothing.
DENIED = (
    "permission denied for database",
    "no pg_hba.conf entry",
    "password authentication failed",
    "pg_hba.conf rejects connection",
    "ACCESS_REFUSED",
    "NOT_ALLOWED",
)


def postgresql(url):
    import psycopg2

    with psycopg2.connect(url, connect_timeout=5) as link, link.cursor() as cursor:
        cursor.execute("SELECT current_database()")
        return cursor.fetchone()[0]


def rabbitmq(url):
    import pika

    parameters = pika.URLParameters(url)
    parameters.socket_timeout = 5
    parameters.connection_attempts = 1
    connection = pika.BlockingConnection(parameters)
    connection.channel().queue_declare("", exclusive=True, auto_delete=True)
    connection.close()
    return "queue declared"


def attempt(kind, url):
    try:
        return {
            "outcome": "in",
            "detail": {"postgresql": postgresql, "rabbitmq": rabbitmq}[kind](url),
        }
    except Exception as error:
        detail = f"{type(error).__name__} {error!r} {error}"
        denied = any(words in detail for words in DENIED)
        return {
            "outcome": "denied" if denied else "broken",
            "detail": " ".join(detail.split())[:300],
        }


answers = [attempt(each["kind"], each["url"]) for each in json.load(sys.stdin)["attempts"]]
json.dump(answers, sys.stdout)
