//! Archives as malformed tests want them: every number of an entry can lie.

/// An entry of an archive, as it will be said to be.
#[derive(Clone)]
pub struct Entry {
    pub name: String,
    /// As stored.
    pub bytes: Vec<u8>,
    /// 0 stored, 8 deflated.
    pub method: u16,
    /// Bytes when unpacked.
    pub size: u32,
    pub crc: u32,
    /// Where its local header is said to be; else where it is.
    pub at: Option<u32>,
}

impl Entry {
    pub fn stored(name: &str, bytes: &[u8]) -> Entry {
        let (size, crc) = (bytes.len() as u32, crc32fast::hash(bytes));
        Entry { name: name.to_owned(), bytes: bytes.to_vec(), method: 0, size, crc, at: None }
    }

    /// `bytes` deflated, none of them smaller for it.
    pub fn deflated(name: &str, bytes: &[u8]) -> Entry {
        let len = bytes.len() as u16;
        let block = [&[1][..], &len.to_le_bytes(), &(!len).to_le_bytes(), bytes].concat();
        Entry { bytes: block, method: 8, ..Entry::stored(name, bytes) }
    }

    /// `head`, then zeros up to about `size` bytes, deflated to 1/158 of them.
    pub fn bomb(name: &str, head: &[u8], size: usize) -> Entry {
        let len = head.len() as u16;
        let mut out = Bits([&[0][..], &len.to_le_bytes(), &(!len).to_le_bytes(), head].concat(), 0, 0);
        let runs = (size - head.len()).div_ceil(258);
        out.put(0b1 | 0b01 << 1, 3); // the last block, of the fixed code
        out.put(0b0000_1100, 8); // a zero: 0x30, its first bit first
        for _ in 0..runs {
            out.put(0b1010_0011, 8); // 258 bytes
            out.put(0, 5); // from one byte before
        }
        out.put(0, 7); // the end
        out.put(0, 7); // the last bits, and some that fill their byte
        let whole = [head, &vec![0; 1 + 258 * runs]].concat();
        let (size, crc) = (whole.len() as u32, crc32fast::hash(&whole));
        Entry { name: name.to_owned(), bytes: out.0, method: 8, size, crc, at: None }
    }
}

/// Bytes, bits that are not yet one, and how many: the lowest comes first.
struct Bits(Vec<u8>, u32, u32);

impl Bits {
    fn put(&mut self, bits: u32, count: u32) {
        self.1 |= bits << self.2;
        self.2 += count;
        while self.2 >= 8 {
            self.0.push(self.1 as u8);
            (self.1, self.2) = (self.1 >> 8, self.2 - 8);
        }
    }
}

/// The archive of `entries`.
pub fn archive(entries: &[Entry]) -> Vec<u8> {
    let (mut out, mut central) = (Vec::new(), Vec::new());
    for entry in entries {
        let at = entry.at.unwrap_or(out.len() as u32);
        let mut common = [20u16, 0, entry.method, 0, 0].map(u16::to_le_bytes).concat();
        common.extend([entry.crc, entry.bytes.len() as u32, entry.size].map(u32::to_le_bytes).concat());
        common.extend([entry.name.len() as u16, 0].map(u16::to_le_bytes).concat());
        out.extend(b"PK\x03\x04".iter().chain(&common).chain(entry.name.as_bytes()).chain(&entry.bytes));
        central.extend(b"PK\x01\x02\x14\x00".iter().chain(&common));
        central.extend([0; 10]); // no comment, first disk, no attributes
        central.extend(at.to_le_bytes().iter().chain(entry.name.as_bytes()));
    }
    let (at, n) = (out.len() as u32, (entries.len() as u16).to_le_bytes());
    out.extend(&central);
    out.extend([&b"PK\x05\x06\0\0\0\0"[..], &n, &n, &(central.len() as u32).to_le_bytes()].concat());
    out.extend(at.to_le_bytes().iter().chain(&[0, 0]));
    out
}
