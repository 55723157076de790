// Made from the schema by `deno task types`; do not edit.
export type Json =
  | string
  | number
  | boolean
  | null
  | { [key: string]: Json | undefined }
  | Json[]

export type Database = {
  // Allows to automatically instantiate createClient with right options
  // instead of createClient<Database, { PostgrestVersion: 'XX' }>(URL, KEY)
  __InternalSupabase: {
    PostgrestVersion: "14.1"
  }
  public: {
    Tables: {
      audit_log: {
        Row: {
          action: string
          actor: string
          actor_id: string | null
          after: Json | null
          at: string
          before: Json | null
          id: number
          row_id: string
          table_name: string
        }
        Insert: {
          action: string
          actor: string
          actor_id?: string | null
          after?: Json | null
          at?: string
          before?: Json | null
          id?: never
          row_id: string
          table_name: string
        }
        Update: {
          action?: string
          actor?: string
          actor_id?: string | null
          after?: Json | null
          at?: string
          before?: Json | null
          id?: never
          row_id?: string
          table_name?: string
        }
        Relationships: []
      }
      branches: {
        Row: {
          description: string
          name: string
        }
        Insert: {
          description?: string
          name: string
        }
        Update: {
          description?: string
          name?: string
        }
        Relationships: []
      }
      device_commands: {
        Row: {
          answered_at: string | null
          args: NonNullable<Json>
          device_id: string
          expires_at: string
          id: string
          kind: Database["public"]["Enums"]["command_kind"]
          requested_at: string
          requested_by: string | null
          result: Json | null
          state: Database["public"]["Enums"]["command_state"]
        }
        Insert: {
          answered_at?: string | null
          args?: NonNullable<Json>
          device_id: string
          expires_at?: string
          id?: string
          kind: Database["public"]["Enums"]["command_kind"]
          requested_at?: string
          requested_by?: string | null
          result?: Json | null
          state?: Database["public"]["Enums"]["command_state"]
        }
        Update: {
          answered_at?: string | null
          args?: NonNullable<Json>
          device_id?: string
          expires_at?: string
          id?: string
          kind?: Database["public"]["Enums"]["command_kind"]
          requested_at?: string
          requested_by?: string | null
          result?: Json | null
          state?: Database["public"]["Enums"]["command_state"]
        }
        Relationships: [
          {
            foreignKeyName: "device_commands_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "devices"
            referencedColumns: ["id"]
          },
        ]
      }
      device_roles: {
        Row: {
          description: string
          name: string
        }
        Insert: {
          description?: string
          name: string
        }
        Update: {
          description?: string
          name?: string
        }
        Relationships: []
      }
      device_status: {
        Row: {
          agent_version: string | null
          booted_at: string | null
          containers: NonNullable<Json>
          current_release: string | null
          device_id: string
          device_time: string | null
          error: string | null
          error_kind: string | null
          log_tail: NonNullable<Json>
          phase: string | null
          reason: string | null
          reported_at: string
          resources: NonNullable<Json>
          state: Database["public"]["Enums"]["report_state"]
          target_release: string | null
        }
        Insert: {
          agent_version?: string | null
          booted_at?: string | null
          containers?: NonNullable<Json>
          current_release?: string | null
          device_id: string
          device_time?: string | null
          error?: string | null
          error_kind?: string | null
          log_tail?: NonNullable<Json>
          phase?: string | null
          reason?: string | null
          reported_at?: string
          resources?: NonNullable<Json>
          state?: Database["public"]["Enums"]["report_state"]
          target_release?: string | null
        }
        Update: {
          agent_version?: string | null
          booted_at?: string | null
          containers?: NonNullable<Json>
          current_release?: string | null
          device_id?: string
          device_time?: string | null
          error?: string | null
          error_kind?: string | null
          log_tail?: NonNullable<Json>
          phase?: string | null
          reason?: string | null
          reported_at?: string
          resources?: NonNullable<Json>
          state?: Database["public"]["Enums"]["report_state"]
          target_release?: string | null
        }
        Relationships: [
          {
            foreignKeyName: "device_status_current_release_fkey"
            columns: ["current_release"]
            isOneToOne: false
            referencedRelation: "releases"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "device_status_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: true
            referencedRelation: "devices"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "device_status_target_release_fkey"
            columns: ["target_release"]
            isOneToOne: false
            referencedRelation: "releases"
            referencedColumns: ["id"]
          },
        ]
      }
      devices: {
        Row: {
          branch: string
          created_at: string
          enrolled_at: string | null
          hardware_model: string | null
          hold: boolean
          hold_reason: string | null
          hold_until: string | null
          id: string
          labels: NonNullable<Json>
          maintenance_window: string | null
          name: string
          os: string | null
          pinned_at: string | null
          pinned_release: string | null
          public_key: string | null
          role: string
          segment: string
          state: Database["public"]["Enums"]["device_state"]
          timezone: string
          update_interval_s: number | null
          updated_at: string
        }
        Insert: {
          branch?: string
          created_at?: string
          enrolled_at?: string | null
          hardware_model?: string | null
          hold?: boolean
          hold_reason?: string | null
          hold_until?: string | null
          id?: string
          labels?: NonNullable<Json>
          maintenance_window?: string | null
          name: string
          os?: string | null
          pinned_at?: string | null
          pinned_release?: string | null
          public_key?: string | null
          role: string
          segment?: string
          state?: Database["public"]["Enums"]["device_state"]
          timezone?: string
          update_interval_s?: number | null
          updated_at?: string
        }
        Update: {
          branch?: string
          created_at?: string
          enrolled_at?: string | null
          hardware_model?: string | null
          hold?: boolean
          hold_reason?: string | null
          hold_until?: string | null
          id?: string
          labels?: NonNullable<Json>
          maintenance_window?: string | null
          name?: string
          os?: string | null
          pinned_at?: string | null
          pinned_release?: string | null
          public_key?: string | null
          role?: string
          segment?: string
          state?: Database["public"]["Enums"]["device_state"]
          timezone?: string
          update_interval_s?: number | null
          updated_at?: string
        }
        Relationships: [
          {
            foreignKeyName: "devices_branch_fkey"
            columns: ["branch"]
            isOneToOne: false
            referencedRelation: "branches"
            referencedColumns: ["name"]
          },
          {
            foreignKeyName: "devices_maintenance_window_fkey"
            columns: ["maintenance_window"]
            isOneToOne: false
            referencedRelation: "maintenance_windows"
            referencedColumns: ["name"]
          },
          {
            foreignKeyName: "devices_pinned_release_fkey"
            columns: ["pinned_release"]
            isOneToOne: false
            referencedRelation: "releases"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "devices_role_fkey"
            columns: ["role"]
            isOneToOne: false
            referencedRelation: "device_roles"
            referencedColumns: ["name"]
          },
          {
            foreignKeyName: "devices_segment_fkey"
            columns: ["segment"]
            isOneToOne: false
            referencedRelation: "segments"
            referencedColumns: ["name"]
          },
        ]
      }
      fleet_settings: {
        Row: {
          audit_retention_months: number
          default_poll_s: number
          device_token_ttl_s: number
          enroll_per_minute_per_address: number
          history_retention_months: number
          id: boolean
          max_pending_devices: number
          offline_after_intervals: number
          pending_role: string
          requests_per_hour_per_device: number
          spread_ms_per_device: number
          token_per_minute_per_address: number
          updated_at: string
          wake_one_by_one_up_to: number
        }
        Insert: {
          audit_retention_months?: number
          default_poll_s?: number
          device_token_ttl_s?: number
          enroll_per_minute_per_address?: number
          history_retention_months?: number
          id?: boolean
          max_pending_devices?: number
          offline_after_intervals?: number
          pending_role?: string
          requests_per_hour_per_device?: number
          spread_ms_per_device?: number
          token_per_minute_per_address?: number
          updated_at?: string
          wake_one_by_one_up_to?: number
        }
        Update: {
          audit_retention_months?: number
          default_poll_s?: number
          device_token_ttl_s?: number
          enroll_per_minute_per_address?: number
          history_retention_months?: number
          id?: boolean
          max_pending_devices?: number
          offline_after_intervals?: number
          pending_role?: string
          requests_per_hour_per_device?: number
          spread_ms_per_device?: number
          token_per_minute_per_address?: number
          updated_at?: string
          wake_one_by_one_up_to?: number
        }
        Relationships: [
          {
            foreignKeyName: "fleet_settings_pending_role_fkey"
            columns: ["pending_role"]
            isOneToOne: false
            referencedRelation: "device_roles"
            referencedColumns: ["name"]
          },
        ]
      }
      halts: {
        Row: {
          cause: string
          evidence: NonNullable<Json>
          id: string
          lift_reason: string | null
          lifted_at: string | null
          lifted_by: string | null
          opened_at: string
          opened_by: string | null
          reason: string
          scope: Database["public"]["Enums"]["halt_scope"]
          target: string | null
        }
        Insert: {
          cause?: string
          evidence?: NonNullable<Json>
          id?: string
          lift_reason?: string | null
          lifted_at?: string | null
          lifted_by?: string | null
          opened_at?: string
          opened_by?: string | null
          reason: string
          scope?: Database["public"]["Enums"]["halt_scope"]
          target?: string | null
        }
        Update: {
          cause?: string
          evidence?: NonNullable<Json>
          id?: string
          lift_reason?: string | null
          lifted_at?: string | null
          lifted_by?: string | null
          opened_at?: string
          opened_by?: string | null
          reason?: string
          scope?: Database["public"]["Enums"]["halt_scope"]
          target?: string | null
        }
        Relationships: []
      }
      known_bad_releases: {
        Row: {
          at: string
          device_id: string
          error: string | null
          error_kind: string | null
          history_id: string | null
          release_id: string
        }
        Insert: {
          at?: string
          device_id: string
          error?: string | null
          error_kind?: string | null
          history_id?: string | null
          release_id: string
        }
        Update: {
          at?: string
          device_id?: string
          error?: string | null
          error_kind?: string | null
          history_id?: string | null
          release_id?: string
        }
        Relationships: [
          {
            foreignKeyName: "known_bad_releases_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "devices"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "known_bad_releases_release_id_fkey"
            columns: ["release_id"]
            isOneToOne: false
            referencedRelation: "releases"
            referencedColumns: ["id"]
          },
        ]
      }
      maintenance_windows: {
        Row: {
          description: string
          name: string
        }
        Insert: {
          description?: string
          name: string
        }
        Update: {
          description?: string
          name?: string
        }
        Relationships: []
      }
      operators: {
        Row: {
          created_at: string
          email: string | null
          rank: Database["public"]["Enums"]["operator_rank"]
          user_id: string
        }
        Insert: {
          created_at?: string
          email?: string | null
          rank?: Database["public"]["Enums"]["operator_rank"]
          user_id: string
        }
        Update: {
          created_at?: string
          email?: string | null
          rank?: Database["public"]["Enums"]["operator_rank"]
          user_id?: string
        }
        Relationships: []
      }
      releases: {
        Row: {
          branch: string
          commit_sha: string
          created_at: string
          created_by: string | null
          id: string
          notes: string
          signer: string | null
          state: Database["public"]["Enums"]["release_state"]
          version: string
        }
        Insert: {
          branch?: string
          commit_sha: string
          created_at?: string
          created_by?: string | null
          id?: string
          notes?: string
          signer?: string | null
          state?: Database["public"]["Enums"]["release_state"]
          version?: string
        }
        Update: {
          branch?: string
          commit_sha?: string
          created_at?: string
          created_by?: string | null
          id?: string
          notes?: string
          signer?: string | null
          state?: Database["public"]["Enums"]["release_state"]
          version?: string
        }
        Relationships: [
          {
            foreignKeyName: "releases_branch_fkey"
            columns: ["branch"]
            isOneToOne: false
            referencedRelation: "branches"
            referencedColumns: ["name"]
          },
        ]
      }
      segments: {
        Row: {
          description: string
          name: string
          position: number
        }
        Insert: {
          description?: string
          name: string
          position: number
        }
        Update: {
          description?: string
          name?: string
          position?: number
        }
        Relationships: []
      }
      update_history: {
        Row: {
          agent_version: string | null
          bytes_fetched: number
          device_id: string
          error: string | null
          error_kind: string | null
          evidence: NonNullable<Json>
          failed_phase: string | null
          finished_at: string
          from_commit: string | null
          id: string
          outcome: Database["public"]["Enums"]["update_outcome"]
          phase_durations_ms: NonNullable<Json>
          received_at: string
          release_id: string | null
          rollout_id: string | null
          started_at: string
          to_commit: string
        }
        Insert: {
          agent_version?: string | null
          bytes_fetched?: number
          device_id: string
          error?: string | null
          error_kind?: string | null
          evidence?: NonNullable<Json>
          failed_phase?: string | null
          finished_at: string
          from_commit?: string | null
          id: string
          outcome: Database["public"]["Enums"]["update_outcome"]
          phase_durations_ms?: NonNullable<Json>
          received_at?: string
          release_id?: string | null
          rollout_id?: string | null
          started_at: string
          to_commit: string
        }
        Update: {
          agent_version?: string | null
          bytes_fetched?: number
          device_id?: string
          error?: string | null
          error_kind?: string | null
          evidence?: NonNullable<Json>
          failed_phase?: string | null
          finished_at?: string
          from_commit?: string | null
          id?: string
          outcome?: Database["public"]["Enums"]["update_outcome"]
          phase_durations_ms?: NonNullable<Json>
          received_at?: string
          release_id?: string | null
          rollout_id?: string | null
          started_at?: string
          to_commit?: string
        }
        Relationships: [
          {
            foreignKeyName: "update_history_device_id_fkey"
            columns: ["device_id"]
            isOneToOne: false
            referencedRelation: "devices"
            referencedColumns: ["id"]
          },
          {
            foreignKeyName: "update_history_release_id_fkey"
            columns: ["release_id"]
            isOneToOne: false
            referencedRelation: "releases"
            referencedColumns: ["id"]
          },
        ]
      }
    }
    Views: {
      [_ in never]: never
    }
    Functions: {
      accept_device: {
        Args: { device_id: string }
        Returns: {
          branch: string
          created_at: string
          enrolled_at: string | null
          hardware_model: string | null
          hold: boolean
          hold_reason: string | null
          hold_until: string | null
          id: string
          labels: NonNullable<Json>
          maintenance_window: string | null
          name: string
          os: string | null
          pinned_at: string | null
          pinned_release: string | null
          public_key: string | null
          role: string
          segment: string
          state: Database["public"]["Enums"]["device_state"]
          timezone: string
          update_interval_s: number | null
          updated_at: string
        }
        SetofOptions: {
          from: "*"
          to: "devices"
          isOneToOne: true
          isSetofReturn: false
        }
      }
      begin_device_token: {
        Args: { client_address: string; device_id: string }
        Returns: Json
      }
      create_provisioning_token: {
        Args: {
          auto_accept?: boolean
          branch?: string
          label?: string
          max_uses?: number
          role: string
          segment?: string
          valid_for_s?: number
        }
        Returns: Json
      }
      desired_state: { Args: Record<PropertyKey, never>; Returns: Json }
      enroll_device: {
        Args: {
          assertion_expires_at: string
          client_address: string
          hardware_model?: string
          jti: string
          name: string
          os?: string
          public_key: string
          token_hash?: string
        }
        Returns: Json
      }
      explain_device: {
        Args: { at?: string; device_id: string }
        Returns: Json
      }
      finish_device_token: {
        Args: { assertion_expires_at: string; device_id: string; jti: string }
        Returns: Json
      }
      halt_fleet: {
        Args: { reason: string }
        Returns: {
          cause: string
          evidence: NonNullable<Json>
          id: string
          lift_reason: string | null
          lifted_at: string | null
          lifted_by: string | null
          opened_at: string
          opened_by: string | null
          reason: string
          scope: Database["public"]["Enums"]["halt_scope"]
          target: string | null
        }
        SetofOptions: {
          from: "*"
          to: "halts"
          isOneToOne: true
          isSetofReturn: false
        }
      }
      lift_halt: {
        Args: { halt_id: string; reason: string }
        Returns: {
          cause: string
          evidence: NonNullable<Json>
          id: string
          lift_reason: string | null
          lifted_at: string | null
          lifted_by: string | null
          opened_at: string
          opened_by: string | null
          reason: string
          scope: Database["public"]["Enums"]["halt_scope"]
          target: string | null
        }
        SetofOptions: {
          from: "*"
          to: "halts"
          isOneToOne: true
          isSetofReturn: false
        }
      }
      pin_device: {
        Args: { device_id: string; release_id: string }
        Returns: {
          branch: string
          created_at: string
          enrolled_at: string | null
          hardware_model: string | null
          hold: boolean
          hold_reason: string | null
          hold_until: string | null
          id: string
          labels: NonNullable<Json>
          maintenance_window: string | null
          name: string
          os: string | null
          pinned_at: string | null
          pinned_release: string | null
          public_key: string | null
          role: string
          segment: string
          state: Database["public"]["Enums"]["device_state"]
          timezone: string
          update_interval_s: number | null
          updated_at: string
        }
        SetofOptions: {
          from: "*"
          to: "devices"
          isOneToOne: true
          isSetofReturn: false
        }
      }
      provisioning_tokens: {
        Args: Record<PropertyKey, never>
        Returns: {
          auto_accept: boolean
          branch: string
          created_at: string
          created_by: string
          expires_at: string
          id: string
          label: string
          max_uses: number
          revoked_at: string
          role: string
          segment: string
          uses: number
        }[]
      }
      revoke_provisioning_token: {
        Args: { token_id: string }
        Returns: undefined
      }
      unpin_device: {
        Args: { device_id: string }
        Returns: {
          branch: string
          created_at: string
          enrolled_at: string | null
          hardware_model: string | null
          hold: boolean
          hold_reason: string | null
          hold_until: string | null
          id: string
          labels: NonNullable<Json>
          maintenance_window: string | null
          name: string
          os: string | null
          pinned_at: string | null
          pinned_release: string | null
          public_key: string | null
          role: string
          segment: string
          state: Database["public"]["Enums"]["device_state"]
          timezone: string
          update_interval_s: number | null
          updated_at: string
        }
        SetofOptions: {
          from: "*"
          to: "devices"
          isOneToOne: true
          isSetofReturn: false
        }
      }
    }
    Enums: {
      command_kind:
        | "update_now"
        | "rollback"
        | "enter_safe_mode"
        | "leave_safe_mode"
        | "restart"
        | "tail_logs"
        | "check_drift"
      command_state: "queued" | "succeeded" | "failed" | "expired"
      device_state: "pending" | "active" | "suspended" | "retired"
      halt_scope:
        | "fleet"
        | "segment"
        | "role"
        | "branch"
        | "release"
        | "rollout"
      operator_rank: "viewer" | "operator" | "admin"
      release_state: "available" | "withdrawn"
      report_state:
        | "healthy"
        | "updating"
        | "degraded"
        | "rolled_back"
        | "isolated"
        | "safe_mode"
      update_outcome: "succeeded" | "failed" | "rolled_back" | "skipped"
    }
    CompositeTypes: {
      [_ in never]: never
    }
  }
}

type DatabaseWithoutInternals = Omit<Database, "__InternalSupabase">

type DefaultSchema = DatabaseWithoutInternals[Extract<keyof Database, "public">]

export type Tables<
  DefaultSchemaTableNameOrOptions extends
    | keyof (DefaultSchema["Tables"] & DefaultSchema["Views"])
    | { schema: keyof DatabaseWithoutInternals },
  TableName extends (DefaultSchemaTableNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals
  }
    ? keyof (DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"] &
        DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Views"])
    : never) = never,
> = DefaultSchemaTableNameOrOptions extends {
  schema: keyof DatabaseWithoutInternals
}
  ? (DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"] &
      DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Views"])[TableName] extends {
      Row: infer R
    }
    ? R
    : never
  : DefaultSchemaTableNameOrOptions extends keyof (DefaultSchema["Tables"] &
        DefaultSchema["Views"])
    ? (DefaultSchema["Tables"] &
        DefaultSchema["Views"])[DefaultSchemaTableNameOrOptions] extends {
        Row: infer R
      }
      ? R
      : never
    : never

export type TablesInsert<
  DefaultSchemaTableNameOrOptions extends
    | keyof DefaultSchema["Tables"]
    | { schema: keyof DatabaseWithoutInternals },
  TableName extends (DefaultSchemaTableNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals
  }
    ? keyof DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"]
    : never) = never,
> = DefaultSchemaTableNameOrOptions extends {
  schema: keyof DatabaseWithoutInternals
}
  ? DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"][TableName] extends {
      Insert: infer I
    }
    ? I
    : never
  : DefaultSchemaTableNameOrOptions extends keyof DefaultSchema["Tables"]
    ? DefaultSchema["Tables"][DefaultSchemaTableNameOrOptions] extends {
        Insert: infer I
      }
      ? I
      : never
    : never

export type TablesUpdate<
  DefaultSchemaTableNameOrOptions extends
    | keyof DefaultSchema["Tables"]
    | { schema: keyof DatabaseWithoutInternals },
  TableName extends (DefaultSchemaTableNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals
  }
    ? keyof DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"]
    : never) = never,
> = DefaultSchemaTableNameOrOptions extends {
  schema: keyof DatabaseWithoutInternals
}
  ? DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions["schema"]]["Tables"][TableName] extends {
      Update: infer U
    }
    ? U
    : never
  : DefaultSchemaTableNameOrOptions extends keyof DefaultSchema["Tables"]
    ? DefaultSchema["Tables"][DefaultSchemaTableNameOrOptions] extends {
        Update: infer U
      }
      ? U
      : never
    : never

export type Enums<
  DefaultSchemaEnumNameOrOptions extends
    | keyof DefaultSchema["Enums"]
    | { schema: keyof DatabaseWithoutInternals },
  EnumName extends (DefaultSchemaEnumNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals
  }
    ? keyof DatabaseWithoutInternals[DefaultSchemaEnumNameOrOptions["schema"]]["Enums"]
    : never) = never,
> = DefaultSchemaEnumNameOrOptions extends {
  schema: keyof DatabaseWithoutInternals
}
  ? DatabaseWithoutInternals[DefaultSchemaEnumNameOrOptions["schema"]]["Enums"][EnumName]
  : DefaultSchemaEnumNameOrOptions extends keyof DefaultSchema["Enums"]
    ? DefaultSchema["Enums"][DefaultSchemaEnumNameOrOptions]
    : never

export type CompositeTypes<
  PublicCompositeTypeNameOrOptions extends
    | keyof DefaultSchema["CompositeTypes"]
    | { schema: keyof DatabaseWithoutInternals },
  CompositeTypeName extends (PublicCompositeTypeNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals
  }
    ? keyof DatabaseWithoutInternals[PublicCompositeTypeNameOrOptions["schema"]]["CompositeTypes"]
    : never) = never,
> = PublicCompositeTypeNameOrOptions extends {
  schema: keyof DatabaseWithoutInternals
}
  ? DatabaseWithoutInternals[PublicCompositeTypeNameOrOptions["schema"]]["CompositeTypes"][CompositeTypeName]
  : PublicCompositeTypeNameOrOptions extends keyof DefaultSchema["CompositeTypes"]
    ? DefaultSchema["CompositeTypes"][PublicCompositeTypeNameOrOptions]
    : never

export const Constants = {
  public: {
    Enums: {
      command_kind: [
        "update_now",
        "rollback",
        "enter_safe_mode",
        "leave_safe_mode",
        "restart",
        "tail_logs",
        "check_drift",
      ],
      command_state: ["queued", "succeeded", "failed", "expired"],
      device_state: ["pending", "active", "suspended", "retired"],
      halt_scope: ["fleet", "segment", "role", "branch", "release", "rollout"],
      operator_rank: ["viewer", "operator", "admin"],
      release_state: ["available", "withdrawn"],
      report_state: [
        "healthy",
        "updating",
        "degraded",
        "rolled_back",
        "isolated",
        "safe_mode",
      ],
      update_outcome: ["succeeded", "failed", "rolled_back", "skipped"],
    },
  },
} as const
