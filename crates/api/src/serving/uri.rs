//! Which `storageUri`s are acceptable before anything is fetched.
//!
//! The fetcher guards itself again where it connects; here hostile text is refused while its author still looks.

/// Schemes that KServe or this platform fetches.
const SCHEMES: [&str; 14] = [
    "gs",
    "s3",
    "pvc",
    "file",
    "http",
    "https",
    "hdfs",
    "webhdfs",
    "oci",
    "hf",
    "models",
    "minio",
    "mlflow-artifacts",
    "runs",
];

/// Nothing when the URI is fine, else what is wrong with it.
pub fn problem(uri: &str) -> Option<String> {
    let Some((scheme, rest)) = uri.split_once(':') else {
        return Some(format!("'{uri}' has no scheme, expected one of {}", SCHEMES.join(", ")));
    };
    if !SCHEMES.contains(&scheme) {
        return Some(format!(
            "storageUri, must be one of: [{}]. StorageUri [{uri}] is not supported.",
            SCHEMES.join(", ")
        ));
    }
    let decoded = decode_fully(rest);
    if decoded.contains(['\\', '\0']) || decoded.split('/').any(|part| part == "..") {
        return Some(format!("'{uri}' must not contain '..' or '\\'"));
    }
    match scheme {
        "file" if !decoded.starts_with("///") => Some(format!("'{uri}' must be file:///absolute/path")),
        "pvc" if claim(uri).is_none() => Some(format!("'{uri}' must be pvc://CLAIM or pvc://CLAIM/PATH")),
        "http" | "https" if is_inside(&decoded) => {
            Some(format!("'{uri}' names an address of the machine itself or of its network's services"))
        }
        _ => None,
    }
}

/// Claim and path below it of `pvc://claim/path`.
pub fn claim(uri: &str) -> Option<(&str, &str)> {
    let rest = uri.strip_prefix("pvc://")?;
    let (claim, path) = rest.split_once('/').unwrap_or((rest, ""));
    (!claim.is_empty()).then_some((claim, path.trim_matches('/')))
}

fn is_inside(rest: &str) -> bool {
    let authority =
        rest.strip_prefix("//").unwrap_or_default().split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if host.is_empty() || host == "localhost" || host.ends_with(".localhost") {
        return true;
    }
    match host.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(ip)) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified(),
        Ok(std::net::IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local(),
        // 2130706433 and 0x7f.1 are addresses to some resolvers.
        Err(_) => {
            host.chars().all(|c| c.is_ascii_hexdigit() || c == '.' || c == 'x')
                && host.starts_with(|c: char| c.is_ascii_digit())
        }
    }
}

/// Decodes `%xx` until nothing changes: one pass is the classic way around such a check.
fn decode_fully(text: &str) -> String {
    let mut text = text.to_owned();
    loop {
        let decoded = decode_once(&text);
        if decoded == text {
            return text;
        }
        text = decoded;
    }
}

fn decode_once(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match (bytes[at], pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_uris_are_refused() {
        for bad in [
            "/etc/passwd",
            "ftp://x/y",
            "file://etc",
            "file:///a/../b",
            "pvc://",
            "pvc://c/%2e%2e/x",
            "s3://b/%252e%252e/x",
            "http://localhost/x",
            "http://127.0.0.1:5/x",
            "http://user@169.254.169.254/latest",
            "http://[::1]/x",
            "http://2130706433/x",
            "https://0.0.0.0/",
            "http:///x",
            "javascript:alert(1)",
        ] {
            assert!(problem(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn the_uris_of_models_are_accepted() {
        for good in [
            "gs://my-bucket/models/pytorch-iris",
            "s3://bucket/models/batch-model",
            "pvc://model-pvc/a/b",
            "file:///srv/model",
            "models:/churn/1",
            "models:/churn@champion",
            "minio://mlpipeline/v2/x",
            "mlflow-artifacts:/1/r/artifacts/model",
            "https://example.com/m.joblib",
            "hf://org/model",
            "http://10.0.0.7/model",
        ] {
            assert_eq!(problem(good), None, "{good}");
        }
        assert_eq!(claim("pvc://c/a/b/"), Some(("c", "a/b")));
        assert_eq!(claim("pvc://c"), Some(("c", "")));
    }
}
