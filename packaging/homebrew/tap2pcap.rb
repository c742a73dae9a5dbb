# scripts/dist fills in what is between at signs.
class Tap2pcap < Formula
  desc "Turn Envoy tap traces into pcap and pcapng captures"
  url "@URL@"
  version "@VERSION@"
  sha256 "@SHA256@"
  license "Apache-2.0"

  depends_on arch: :x86_64
  depends_on :linux

  def install
    bin.install "tap2pcap"
    man1.install Dir["man/*.1"]
    bash_completion.install "completions/tap2pcap.bash" => "tap2pcap"
    fish_completion.install "completions/tap2pcap.fish"
    zsh_completion.install "completions/_tap2pcap"
    doc.install "README.md", "CHANGELOG.md", "THIRD-PARTY.txt", "docs"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/tap2pcap --version")
    (testpath/"trace.json").write <<~JSON
      {"socket_buffered_trace": {"trace_id": "1", "connection": {},
       "events": [{"timestamp": "2024-01-01T00:00:00Z", "read": {"data": {"as_bytes": "aGVsbG8="}}}]}}
    JSON
    system bin/"tap2pcap", "trace.json", "capture.pcapng"
    assert_path_exists testpath/"capture.pcapng"
  end
end
