#!/bin/sh
# An application's files, with what is easily lost on the way.
set -eu
mkdir -p /srv/shop/uploads /srv/shop/cache /srv/shop/private /var/log/shop
cd /srv/shop
echo "a note" > /srv/note.txt
echo "hello" > plain.txt
head -c 3000000 /dev/urandom > uploads/image.bin
head -c 100 /dev/urandom > 'uploads/a [b] *c? "d".bin'
printf 'umlaut' > uploads/äöü.txt
: > empty
truncate -s 5M sparse
echo "for its owner" > private/key
chmod 0600 private/key
chown -R nobody:nogroup private
chmod 2750 private
cp /bin/true program
chmod 4755 program
ln -s uploads/image.bin link
ln -s /nowhere dangling
ln plain.txt hard
mkfifo pipe
touch -d '2001-02-03 04:05:06.789 UTC' old
chmod 1777 uploads
echo "left out" > cache/left-out
echo "left out" > uploads/left-out.tmp
