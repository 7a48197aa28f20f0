# Written by berth.platform.pgadmin; changes are overwritten.
"""pgAdmin as a WSGI application, with the account and the servers that the role was given.

They are brought in order before the first request is served, in the process that serves: a
program of its own would load pgAdmin a second time, which takes seconds. Other accounts, and
servers that people have added, are left alone.
"""

import json
import os
import pathlib

# By it a server is known as one of the role's, so that it goes when it is listed no more.
MARK = "Managed by Berth"

_account = json.loads(
    pathlib.Path(os.environ["CREDENTIALS_DIRECTORY"], "account.json").read_text(encoding="utf-8")
)
_servers = json.loads(pathlib.Path("/etc/pgadmin/servers.json").read_text(encoding="utf-8"))

# The first start makes pgAdmin's database with an account of these. They are in no process's
# initial environment, and gone before another process is started.
os.environ["PGADMIN_SETUP_EMAIL"] = _account["email"]
os.environ["PGADMIN_SETUP_PASSWORD"] = _account["password"]
try:
    from pgAdmin4 import app as application
finally:
    del os.environ["PGADMIN_SETUP_EMAIL"], os.environ["PGADMIN_SETUP_PASSWORD"]

from flask_security.utils import hash_password, verify_password  # noqa: E402
from pgadmin.model import Server, ServerGroup, SharedServer, User, db  # noqa: E402
from pgadmin.tools.user_management import create_user  # noqa: E402


def bring_account_in_order(account):
    """The administrator's id; its password is the given one, and it is not locked out."""
    query = User.query.filter_by(username=account["email"], auth_source="internal")
    user = query.first()
    if user is None:
        done, message = create_user(
            {
                "email": account["email"],
                "newPassword": account["password"],
                "confirmPassword": account["password"],
                "role": 1,
                "active": True,
                "auth_source": "internal",
            }
        )
        if not done:
            raise SystemExit(f"pgadmin_admin_email {account['email']}: {message}")
        user = query.first()
    if not verify_password(account["password"], user.password):
        user.password = hash_password(account["password"])
    user.active, user.locked, user.login_attempts = True, False, 0
    return user.id


def bring_servers_in_order(user_id, wanted):
    groups = {group.name: group for group in ServerGroup.query.filter_by(user_id=user_id)}
    there = {
        (server.servergroup.name, server.name): server
        for server in Server.query.filter_by(user_id=user_id, comment=MARK)
    }
    for each in wanted:
        if each["group"] not in groups:
            groups[each["group"]] = ServerGroup(name=each["group"], user_id=user_id)
            db.session.add(groups[each["group"]])
            db.session.flush()
        server = there.pop((each["group"], each["name"]), None)
        if server is None:
            server = Server(
                user_id=user_id,
                servergroup_id=groups[each["group"]].id,
                name=each["name"],
                comment=MARK,
                save_password=0,
                use_ssh_tunnel=0,
                tunnel_authentication=0,
                tunnel_prompt_password=0,
                # For everybody who has an account; each signs in to it as somebody.
                shared=True,
            )
            db.session.add(server)
        server.host, server.port = each["host"], each["port"]
        server.maintenance_db, server.username = each["database"], each["user"]
        server.connection_params = {"sslmode": each["sslmode"], "connect_timeout": 10}
    for server in there.values():
        SharedServer.query.filter_by(osid=server.id).delete()
        db.session.delete(server)


with application.test_request_context():
    bring_servers_in_order(bring_account_in_order(_account), _servers)
    db.session.commit()
del _account
