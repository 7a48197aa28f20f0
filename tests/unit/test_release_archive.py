"""Artifacts: packed the same way every time, unpacked without trusting them."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from ansible_collections.berth.platform.plugins.module_utils.release_archive import (
    ArchiveError,
    directory_digest,
    file_digest,
    pack,
    unpack,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "run").write_text("#!/bin/sh\n")
    (root / "bin" / "run").chmod(0o700)
    (root / "data.txt").write_text("data\n")
    (root / "empty").mkdir()
    (root / "link").symlink_to("bin/run")
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "x.pyc").write_text("junk")
    return root


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def info(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = link
    member.mode = 0o644
    return member


class TestPacking:
    def test_same_bytes_for_the_same_content(self, source: Path, tmp_path: Path) -> None:
        pack(str(source), str(tmp_path / "a"))
        os.utime(source / "data.txt", (1, 1))
        (source / "data.txt").chmod(0o664)
        (source / "__pycache__" / "y.pyc").write_text("more junk")
        pack(str(source), str(tmp_path / "b"))
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    @pytest.mark.parametrize("change", ["content", "name", "mode", "link", "new", "directory"])
    def test_digest_sees_what_counts(self, source: Path, change: str) -> None:
        before = directory_digest(str(source))
        if change == "content":
            (source / "data.txt").write_text("DATA\n")
        elif change == "name":
            (source / "data.txt").rename(source / "date.txt")
        elif change == "mode":
            (source / "data.txt").chmod(0o755)
        elif change == "link":
            (source / "link").unlink()
            (source / "link").symlink_to("data.txt")
        elif change == "new":
            (source / "new").write_text("")
        else:
            (source / "another").mkdir()
        assert directory_digest(str(source)) != before

    def test_round_trip(self, source: Path, tmp_path: Path) -> None:
        pack(str(source), str(tmp_path / "x.tar.gz"))
        target = tmp_path / "target"
        target.mkdir()
        unpack(str(tmp_path / "x.tar.gz"), str(target), name="x.tar.gz")
        assert directory_digest(str(target)) == directory_digest(str(source))
        assert (target / "data.txt").stat().st_mtime > 1_000_000_000
        assert not (target / "__pycache__").exists()

    def test_own_patterns(self, source: Path) -> None:
        assert directory_digest(str(source), ["bin/*"]) != directory_digest(str(source), ["bin"])

    @pytest.mark.parametrize("target", ["/etc/passwd", "../outside"])
    def test_link_to_outside(self, source: Path, target: str) -> None:
        (source / "bin" / "evil").symlink_to(target if target[0] == "/" else f"../{target}")
        with pytest.raises(ArchiveError, match="outside"):
            directory_digest(str(source))

    def test_special_file(self, source: Path) -> None:
        os.mkfifo(source / "pipe")
        with pytest.raises(ArchiveError, match="neither"):
            directory_digest(str(source))


class TestUnpacking:
    def put(self, tmp_path: Path, archive: Path, **options: object) -> Path:
        target = tmp_path / "target"
        target.mkdir()
        unpack(str(archive), str(target), name=archive.name, **options)  # type: ignore[arg-type]
        return target

    @pytest.mark.parametrize(
        "member",
        [
            info("/etc/evil"),
            info("../evil"),
            info("a/../../evil"),
            info("device", tarfile.CHRTYPE),
            info("pipe", tarfile.FIFOTYPE),
            info("link", tarfile.SYMTYPE, "/etc/passwd"),
            info("link", tarfile.SYMTYPE, "../../etc/passwd"),
            info("a/link", tarfile.SYMTYPE, "../../x"),
            info("hard", tarfile.LNKTYPE, "/etc/passwd"),
            info("hard", tarfile.LNKTYPE, "../x"),
        ],
        ids=lambda member: f"{member.name} {member.linkname}",
    )
    def test_refused_and_nothing_written(self, tmp_path: Path, member: tarfile.TarInfo) -> None:
        archive = tar(tmp_path / "x.tar.gz", (info("good"), b"good"), (member, b""))
        with pytest.raises(ArchiveError, match="the artifact holds"):
            self.put(tmp_path, archive)
        assert list((tmp_path / "target").iterdir()) == []
        assert not (tmp_path / "evil").exists()

    def test_not_through_a_link(self, tmp_path: Path) -> None:
        archive = tar(
            tmp_path / "x.tar.gz",
            (info("real", tarfile.DIRTYPE), b""),
            (info("link", tarfile.SYMTYPE, "real"), b""),
            (info("link/file"), b"x"),
        )
        with pytest.raises(ArchiveError, match="no directory"):
            self.put(tmp_path, archive)

    def test_link_is_replaced_not_followed(self, tmp_path: Path) -> None:
        archive = tar(
            tmp_path / "x.tar.gz",
            (info("target"), b"untouched"),
            (info("name", tarfile.SYMTYPE, "target"), b""),
            (info("name"), b"new"),
        )
        target = self.put(tmp_path, archive)
        assert (target / "target").read_text() == "untouched"
        assert (target / "name").read_text() == "new"

    def test_hard_link_is_the_file(self, tmp_path: Path) -> None:
        archive = tar(
            tmp_path / "x.tar.gz", (info("a"), b"content"), (info("b", tarfile.LNKTYPE, "a"), b"")
        )
        assert (self.put(tmp_path, archive) / "b").read_text() == "content"

    def test_no_set_user_id(self, tmp_path: Path) -> None:
        member = info("run")
        member.mode = 0o6755
        target = self.put(tmp_path, tar(tmp_path / "x.tgz", (member, b"x")))
        assert stat.S_IMODE((target / "run").stat().st_mode) == 0o755

    def test_strip(self, tmp_path: Path) -> None:
        archive = tar(
            tmp_path / "x.tar.gz",
            (info("app-1.0", tarfile.DIRTYPE), b""),
            (info("app-1.0/bin/run"), b"x"),
        )
        assert (self.put(tmp_path, archive, strip=1) / "bin" / "run").exists()

    def test_zip(self, tmp_path: Path) -> None:
        path = tmp_path / "x.zip"
        with zipfile.ZipFile(path, "w") as archive:
            entry = zipfile.ZipInfo("bin/run")
            entry.external_attr = 0o100755 << 16
            archive.writestr(entry, "x")
            link = zipfile.ZipInfo("link")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, "bin/run")
            archive.writestr("plain.txt", "x")
        target = self.put(tmp_path, path)
        assert os.access(target / "bin" / "run", os.X_OK)
        assert (target / "link").readlink() == Path("bin/run")
        assert not (target / "plain.txt").stat().st_mode & 0o111

    @pytest.mark.parametrize(("name", "link"), [("../evil", ""), ("/evil", ""), ("l", "/etc")])
    def test_evil_zip(self, tmp_path: Path, name: str, link: str) -> None:
        path = tmp_path / "x.zip"
        with zipfile.ZipFile(path, "w") as archive:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o120777 if link else 0o100644) << 16
            archive.writestr(entry, link or "x")
        with pytest.raises(ArchiveError, match="the artifact holds"):
            self.put(tmp_path, path)
        assert not (tmp_path / "evil").exists()

    def test_jar_stays_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "app.jar"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", "x")
        target = self.put(tmp_path, path)
        assert file_digest(str(target / "app.jar")) == file_digest(str(path))
        assert os.access(target / "app.jar", os.X_OK)

    @pytest.mark.parametrize("content", [b"", b"not an archive", b"\x1f\x8b\x08broken"])
    def test_not_an_archive(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "x.tar.gz"
        path.write_bytes(content)
        with pytest.raises(ArchiveError, match=r"neither a tar nor a zip|cannot be unpacked"):
            self.put(tmp_path, path)

    def test_cut_short(self, source: Path, tmp_path: Path) -> None:
        (source / "big").write_bytes(os.urandom(100_000))
        pack(str(source), str(tmp_path / "x.tar.gz"))
        whole = (tmp_path / "x.tar.gz").read_bytes()
        (tmp_path / "x.tar.gz").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ArchiveError):
            self.put(tmp_path, tmp_path / "x.tar.gz")
