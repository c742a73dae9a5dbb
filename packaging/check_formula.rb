# Evaluates the Homebrew formula without Homebrew: check_formula.rb FORMULA TARBALL FOLDER. It checks the tarball's sum,
# installs the tarball into FOLDER as `def install` says, and runs the formula's test.
require "digest"
require "fileutils"
require "open3"
require "pathname"
require "tmpdir"

formula, tarball, folder = ARGV.map { |argument| Pathname(argument).expand_path }

# A folder into which a formula installs.
class Pathname
  def install(*things)
    mkpath
    things.flatten.flat_map { |thing| thing.is_a?(Hash) ? thing.to_a : [[thing, File.basename(thing)]] }.each do |from, to|
      FileUtils.cp_r(from, self + to)
    end
  end
end

# What the formula uses of Homebrew's class.
class Formula
  class << self
    attr_reader :said, :requirements, :tested

    %i[desc url version sha256 license].each do |name|
      define_method(name) { |value| (@said ||= {})[name] = value }
    end
    def depends_on(what) = (@requirements ||= []) << what
    def test(&block) = @tested = block
  end

  attr_reader :prefix, :testpath

  def initialize(prefix, testpath)
    @prefix = prefix
    @testpath = testpath
  end

  def version = self.class.said.fetch(:version)
  def bin = prefix + "bin"
  def man1 = prefix + "share/man/man1"
  def doc = prefix + "share/doc/tap2pcap"
  def bash_completion = prefix + "etc/bash_completion.d"
  def fish_completion = prefix + "share/fish/vendor_completions.d"
  def zsh_completion = prefix + "share/zsh/site-functions"

  def shell_output(command)
    output, status = Open3.capture2(command)
    status.success? ? output : raise("#{command}: #{status}")
  end

  def system(*command) = Kernel.system(*command.map(&:to_s)) || raise("#{command} failed")
  def assert_match(part, whole) = whole.include?(part) || raise("no #{part} in #{whole}")
  def assert_path_exists(path) = path.exist? || raise("no #{path}")
end

load formula
said = Tap2pcap.said
raise "says too little: #{said.keys}" unless said.keys.sort == %i[desc license sha256 url version]
raise "a description of Homebrew has at most 80 letters" if said[:desc].length > 80
raise "leads to #{said[:url]}" unless said[:url].end_with?("/#{tarball.basename}")
raise "another sum" unless said[:sha256] == Digest::SHA256.file(tarball).hexdigest
raise "for every system" unless Tap2pcap.requirements.include?(:linux)

Dir.mktmpdir do |place|
  Dir.chdir(place) do
    Kernel.system("tar", "-xzf", tarball.to_s, "--strip-components=1") || raise("tar failed")
    Tap2pcap.new(folder, nil).install
  end
end
Dir.mktmpdir do |place|
  Dir.chdir(place) { Tap2pcap.new(folder, Pathname(place)).instance_exec(&Tap2pcap.tested) }
end
%w[bin/tap2pcap share/man/man1/tap2pcap.1 etc/bash_completion.d/tap2pcap share/zsh/site-functions/_tap2pcap
   share/fish/vendor_completions.d/tap2pcap.fish share/doc/tap2pcap/README.md].each do |path|
  raise "#{path} is missing" unless (folder + path).file?
end
