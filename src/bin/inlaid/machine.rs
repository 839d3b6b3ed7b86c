//! Floor 6: what this process takes of the machine. Knows Linux; elsewhere the answer is that nobody knows.

/// Memory of this process, in bytes.
pub struct Memory {
    /// Private memory that is resident: not what is mapped from files.
    pub private: Option<u64>,
    /// The most that was resident at once, mapped files included.
    pub peak: Option<u64>,
}

/// Memory of this process now.
pub fn memory() -> Memory {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    Memory { private: bytes(&status, "RssAnon:"), peak: bytes(&status, "VmHWM:") }
}

/// The value of a line such as `VmHWM:  1234 kB`.
fn bytes(status: &str, key: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn status_lines_are_read_in_kib() {
        let status = "Name:\tinlaid\nVmHWM:\t   12 kB\nRssAnon:\t3 kB\nRssFile:\t x kB\n";
        assert_eq!(bytes(status, "VmHWM:"), Some(12 << 10));
        assert_eq!(bytes(status, "RssAnon:"), Some(3 << 10));
        assert_eq!(bytes(status, "RssFile:"), None);
        assert_eq!(bytes(status, "RssShmem:"), None);
    }
}
