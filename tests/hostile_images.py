"""Small image files that would be expensive to decode."""

import io

from PIL import Image, PngImagePlugin


def segments(jpeg):
    """Yields the segments of a JPEG between its start and end markers, each scan with its data."""
    place = 2
    while jpeg[place + 1] != 0xD9:
        end = place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        if jpeg[place + 1] == 0xDA:
            while jpeg[end] != 0xFF or jpeg[end + 1] == 0:
                end += 1
        yield jpeg[place:end]
        place = end


def many_scans(image, scans):
    """Returns a progressive grayscale JPEG whose shortest scan is repeated."""
    stream = io.BytesIO()
    image.convert("L").save(stream, "JPEG", progressive=True)
    parts = list(segments(stream.getvalue()))
    shortest = min((part for part in parts if part[1] == 0xDA), key=len)
    repeated = scans - sum(part[1] == 0xDA for part in parts)
    return b"\xff\xd8" + b"".join(parts) + shortest * repeated + b"\xff\xd9"


def many_texts(image, texts):
    """Returns a PNG with many text chunks of 8 MB, 8 kB compressed, after a short one."""

    def saved(text):
        info, stream = PngImagePlugin.PngInfo(), io.BytesIO()
        info.add_text("comment", text, zip=True)
        image.save(stream, "PNG", pnginfo=info)
        content = stream.getvalue()
        start, end = content.index(b"zTXt") - 4, content.index(b"IDAT") - 4
        return content[:start], content[start:end], content[end:]

    before, short, after = saved("a")
    return before + short + saved("a" * 7_900_000)[1] * texts + after


def gif_frame(width, height):
    """Returns a GIF frame that claims a size, but has a single pixel."""
    sides = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return b"," + bytes(4) + sides + b"\0\2\2\x44\1\0"


def gif_with_a_large_frame(side):
    """Returns a GIF of 20 x 10 with a second frame of `side` x `side`."""
    stream = io.BytesIO()
    Image.effect_noise((20, 10), 60).save(stream, "GIF")
    return stream.getvalue()[:-1] + gif_frame(side, side) + b";"
