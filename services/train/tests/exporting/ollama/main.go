// Ollama's own packages, which read a Modelfile and render its template.
package main

import (
	"encoding/json"
	"os"
	"strings"

	"github.com/ollama/ollama/api"
	"github.com/ollama/ollama/parser"
	"github.com/ollama/ollama/template"
)

func main() {
	file, err := os.Open(os.Args[1])
	if err != nil {
		panic(err)
	}
	made, err := parser.ParseFile(file)
	if err != nil {
		panic(err)
	}
	told := map[string]any{}
	var text string
	for _, command := range made.Commands {
		told[command.Name] = command.Args
		if command.Name == "template" {
			text = command.Args
		}
	}
	var conversations [][]api.Message
	if err := json.NewDecoder(os.Stdin).Decode(&conversations); err != nil {
		panic(err)
	}
	parsed, err := template.Parse(text)
	if err != nil {
		panic(err)
	}
	rendered := []string{}
	for _, messages := range conversations {
		var out strings.Builder
		if err := parsed.Execute(&out, template.Values{Messages: messages}); err != nil {
			out.WriteString(err.Error())
		}
		rendered = append(rendered, out.String())
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{"commands": told, "rendered": rendered})
}
